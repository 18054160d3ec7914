//! What this user may do: capabilities(7).

use aya::{maps::MapType, sys::is_map_supported};
use nix::unistd::geteuid;
use procfs::process::Process;

use super::{Fact, Finding, Machine, SUDO};
use crate::kernel::memlock;

/// A capability that is of use.
struct Capability {
    name: &'static str,
    purpose: &'static str,
    /// Its number, include/uapi/linux/capability.h.
    number: u32,
    /// Whether CAP_SYS_ADMIN includes it.
    of_admin: bool,
    /// What it is without.
    without: fn(&'static str) -> Finding,
}

const SYS_ADMIN: u32 = 21;

const CAPABILITIES: [Capability; 4] = [
    Capability {
        name: "CAP_BPF",
        purpose: "to load eBPF programs and make their maps",
        number: 39,
        of_admin: true,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Capability {
        name: "CAP_PERFMON",
        purpose: "to attach to tracepoints, and to read the kernel's memory there",
        number: 38,
        of_admin: true,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        purpose: "to read in /proc which programs other users' processes run",
        number: 19,
        of_admin: false,
        without: |name| {
            let instead =
                "exe, cwd and fds of processes that /proc closes to this user stay unknown";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        },
    },
    Capability {
        name: "CAP_SYS_RESOURCE",
        purpose: "to lift RLIMIT_MEMLOCK, against which eBPF maps count before 5.11",
        number: 24,
        of_admin: false,
        without: unlimited,
    },
];

pub(super) fn facts() -> Vec<Fact> {
    let capabilities = CAPABILITIES.iter().map(|capability| {
        Fact::new(capability.name, capability.purpose, move |_| capability.look()).at_start()
    });
    capabilities.chain([Fact::new("bpf(2)", "to speak with the kernel", bpf)]).collect()
}

impl Capability {
    fn look(&self) -> Finding {
        match Process::myself().and_then(|process| process.status()) {
            Ok(status) if self.is_in(status.capeff) => Finding::ok("held"),
            Ok(_) => (self.without)(self.name),
            Err(error) => Finding::unknown(format!("cannot read /proc/self/status: {error}")),
        }
    }

    /// Whether it is in a set of capabilities, or one that includes it.
    fn is_in(&self, held: u64) -> bool {
        held & (1 << self.number) != 0 || (self.of_admin && held & (1 << SYS_ADMIN) != 0)
    }
}

fn not_held() -> String {
    format!("uid {} does not have it", geteuid())
}

/// How to get a capability.
fn grant(name: &str) -> String {
    if geteuid().is_root() {
        let name = name.trim_start_matches("CAP_");
        format!("give it to the container (docker run --cap-add={name}, or --privileged)")
    } else {
        SUDO.to_owned()
    }
}

/// Without CAP_SYS_RESOURCE.
fn unlimited(name: &'static str) -> Finding {
    match memlock::counts() {
        Ok(false) => Finding::ok(format!("{}, and this kernel does not ask for it", not_held())),
        Ok(true) => {
            let instead = "the maps must fit into the limit that there is (ulimit -l)";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        }
        Err(_) => Finding::unknown(format!("{}; whether that matters takes CAP_BPF", not_held())),
    }
}

/// Whether the system call works at all: seccomp and security modules can forbid it.
fn bpf(machine: &Machine) -> Finding {
    let error = match is_map_supported(MapType::Array) {
        Ok(true) => return Finding::ok("the kernel makes a map"),
        Ok(false) => return Finding::missing("the kernel makes no map", CONFIG),
        Err(error) => error.io_error,
    };
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Finding::missing("this kernel does not have it", CONFIG),
        Some(libc::EPERM) if machine.whole.get() => Finding::missing(
            "refused, though nothing in the user's rights says so: by seccomp or a security module",
            "allow it (docker run --security-opt seccomp=unconfined, or --privileged)",
        ),
        _ => Finding::unknown(format!("cannot make a map: {error}")),
    }
}

const CONFIG: &str = "boot a kernel built with CONFIG_BPF_SYSCALL=y";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_has_what_was_split_from_that() {
        let held_with = |set: u64| {
            let held = CAPABILITIES.iter().filter(move |capability| capability.is_in(set));
            held.map(|capability| capability.name).collect::<Vec<_>>()
        };
        assert_eq!(held_with(0), [""; 0]);
        assert_eq!(held_with(1 << SYS_ADMIN), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(held_with(1 << 39 | 1 << 24), ["CAP_BPF", "CAP_SYS_RESOURCE"]);
        assert_eq!(held_with(0x1ff_ffff_ffff).len(), CAPABILITIES.len());
    }
}
