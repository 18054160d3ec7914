#!/bin/sh
# The tests of a release in a virtual machine that has nothing but busybox, dash, true and cat. Called as a test program
# of Rust: `--list`, or `--exact NAME`. RELEASE is the directory with the archive and the packages.
set -eu

tests='the_archive_traces_a_failure the_debian_package_traces_a_failure the_rpm_package_traces_a_failure'

if [ "$1" = --list ]; then
    for test in $tests; do
        echo "$test: test"
    done
    exit
fi

mkdir -p "/tmp/$2"
cd "/tmp/$2"
case "$2" in
the_archive_traces_a_failure)
    tar -xzf "$RELEASE"/*.tar.gz
    program=$(echo ./*/etxtbsy-trace)
    ;;
the_debian_package_traces_a_failure)
    mkdir -p /var/lib/dpkg/info
    touch /var/lib/dpkg/status
    dpkg -i "$RELEASE"/*.deb
    program=/usr/bin/etxtbsy-trace
    ;;
the_rpm_package_traces_a_failure)
    rm -f /usr/bin/etxtbsy-trace
    (cd / && rpm2cpio "$RELEASE"/*.rpm | cpio -idu)
    program=/usr/bin/etxtbsy-trace
    ;;
esac

for compiler in cargo rustc cc; do
    if command -v "$compiler"; then
        echo "the machine is not clean: it has $compiler"
        exit 1
    fi
done
"$program" --version
"$program" check
cp /bin/true busy
status=0
"$program" run --error-exitcode 9 -o trace.jsonl -- sh -c 'exec 3>>busy; ./busy || true' || status=$?
if [ "$status" != 9 ]; then
    echo "the status is $status, not 9: no failure was seen"
    exit 1
fi
# The shell that opened the file is a holder, beside its child that failed.
grep '"type":"incident"' trace.jsonl | grep '"comm":"sh"' | grep -q '"complete":true'
