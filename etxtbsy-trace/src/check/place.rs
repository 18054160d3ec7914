//! Where we run: the mounts and namespaces that a container may have in another way.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{Fact, Finding};

/// The inode numbers of the first namespaces, include/linux/proc_ns.h: the same on every kernel.
const FIRST_USER_NS: u64 = 0xEFFF_FFFD;
const FIRST_PID_NS: u64 = 0xEFFF_FFFC;

pub(super) fn facts() -> Vec<Fact> {
    vec![
        Fact::new("/proc", "for what is known of processes: exe, argv, cwd", |_| proc()).at_start(),
        Fact::new("/sys", "for the kernel's BTF, and for tracefs", |_| sys()).at_start(),
        Fact::new("user namespace", "for capabilities that count", |_| user_namespace()).at_start(),
        Fact::new("pid namespace", "to see every process of the machine", |_| pid_namespace())
            .at_start(),
    ]
}

fn proc() -> Finding {
    let remedy = "mount -t proc proc /proc";
    match fs::read_link("/proc/self") {
        Ok(own) if own == Path::new(&std::process::id().to_string()) => Finding::ok("mounted"),
        Ok(_) => Finding::missing("it is of another pid namespace", remedy),
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
            "one of its own, whose root has no rights over the kernel",
            "start it outside of the container, or in one that root has started without a user namespace",
        ),
        found => first_or_unknown(found),
    }
}

fn pid_namespace() -> Finding {
    match is_first("pid", FIRST_PID_NS) {
        Some(false) => Finding::degraded(
            "one of its own",
            "processes outside of it are told by the machine's pids, without arguments and cgroup",
        )
        .mended_by("start the container with the host's: docker run --pid=host"),
        found => first_or_unknown(found),
    }
}

fn first_or_unknown(is_first: Option<bool>) -> Finding {
    match is_first {
        Some(_) => Finding::ok("the machine's first"),
        None => Finding::unknown("/proc/self/ns cannot be read"),
    }
}

/// Whether this process is in the first namespace of that kind.
fn is_first(kind: &str, first: u64) -> Option<bool> {
    fs::metadata(format!("/proc/self/ns/{kind}")).ok().map(|facts| facts.ino() == first)
}
