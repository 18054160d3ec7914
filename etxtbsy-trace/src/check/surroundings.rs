//! The mounts and namespaces of this process, which differ in a container.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{Finding, Probe};

/// The inode numbers of the first namespaces, see include/linux/proc_ns.h; equal on all kernels.
const FIRST_USER_NS: u64 = 0xEFFF_FFFD;
const FIRST_PID_NS: u64 = 0xEFFF_FFFC;

pub(super) fn probes() -> Vec<Probe> {
    vec![
        Probe::new("/proc", "to read exe, argv and cwd of processes", |_| proc()).at_start(),
        Probe::new("/sys", "to read the kernel's BTF, and to mount tracefs", |_| sys()).at_start(),
        Probe::new(
            "user namespace",
            "so that the kernel accepts this process's capabilities",
            |_| user_namespace(),
        )
        .at_start(),
        Probe::new("pid namespace", "to see every process of the machine", |_| pid_namespace())
            .at_start(),
    ]
}

fn proc() -> Finding {
    let remedy = "mount -t proc proc /proc";
    match fs::read_link("/proc/self") {
        Ok(own) if own == Path::new(&std::process::id().to_string()) => Finding::ok("mounted"),
        Ok(_) => Finding::missing("/proc belongs to another pid namespace", remedy),
        Err(error) => Finding::missing(format!("cannot read /proc/self: {error}"), remedy),
    }
}

fn sys() -> Finding {
    match fs::metadata("/sys/kernel") {
        Ok(_) => Finding::ok("mounted"),
        Err(error) => {
            Finding::missing(format!("/sys/kernel: {error}"), "mount -t sysfs sysfs /sys")
        }
    }
}

fn user_namespace() -> Finding {
    match is_first("user", FIRST_USER_NS) {
        Some(false) => Finding::missing(
            "this process is in its own user namespace, whose root has no rights over the kernel",
            "start etxtbsy-trace outside the container, or in one that root started without a user namespace",
        ),
        found => first_or_unknown(found),
    }
}

fn pid_namespace() -> Finding {
    match is_first("pid", FIRST_PID_NS) {
        Some(false) => Finding::degraded(
            "this process is in its own pid namespace",
            "reports show processes outside it by the machine's pids, without arguments and cgroup",
        )
        .with_remedy("start the container in the host's pid namespace: docker run --pid=host"),
        found => first_or_unknown(found),
    }
}

fn first_or_unknown(is_first: Option<bool>) -> Finding {
    match is_first {
        Some(_) => Finding::ok("the machine's first namespace"),
        None => Finding::unknown("cannot read /proc/self/ns"),
    }
}

/// Whether this process is in the first namespace of that kind.
fn is_first(kind: &str, first: u64) -> Option<bool> {
    fs::metadata(format!("/proc/self/ns/{kind}")).ok().map(|metadata| metadata.ino() == first)
}
