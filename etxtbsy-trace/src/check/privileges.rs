//! What this user may do: capabilities(7).

use std::path::PathBuf;

use aya::{maps::MapType, sys::is_map_supported};
use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::geteuid,
};
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set, no_new_privs};

use super::{Fact, Finding, Machine, When};
use crate::{
    host::privileges::{self, Capability},
    text::shown,
    tracer::memlock,
};

/// A capability, as `check` asks for it.
struct Asked {
    capability: Capability,
    purpose: &'static str,
    when: When,
    /// The finding where the process does not have it.
    without: fn(&'static str) -> Finding,
}

/// All that it takes where tracefs is mounted, as setcap(8) has them.
const LEAST: &str = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search";

const ASKED: [Asked; 9] = [
    Asked {
        capability: privileges::BPF,
        purpose: "to load eBPF programs and make their maps",
        when: When::Start,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Asked {
        capability: privileges::PERFMON,
        purpose: "to attach to tracepoints, and to read the kernel's memory there",
        when: When::Start,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Asked {
        capability: privileges::SYS_PTRACE,
        purpose: "to read in /proc which programs other users' processes run",
        when: When::Start,
        without: |name| {
            let instead =
                "exe, cwd and fds of processes that /proc closes to this user stay unknown";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        },
    },
    Asked {
        capability: privileges::SYS_RESOURCE,
        purpose: "to lift RLIMIT_MEMLOCK, against which eBPF maps count before 5.11",
        when: When::Start,
        without: unlimited,
    },
    Asked {
        capability: privileges::DAC_READ_SEARCH,
        purpose: "to look at files and fds that only their owner may look at",
        when: When::Failure,
        without: |name| {
            let instead = "a file in another user's private directory, and the rings of io_uring \
                           of other users, stay unknown";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        },
    },
    Asked {
        capability: privileges::KILL,
        purpose: "to pass signals on to a command that runs as another user",
        when: When::Failure,
        without: |name| {
            if is_one_user() {
                return Finding::ok(format!("{}; a command runs as this user", not_held()));
            }
            let instead = "such a command gets no signals that are sent to the tracer alone";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        },
    },
    Asked {
        capability: privileges::SETUID,
        purpose: "to run a command and write files as the user who called sudo",
        when: When::Failure,
        without: own_identity,
    },
    Asked {
        capability: privileges::SETGID,
        purpose: "to do so with that user's groups",
        when: When::Failure,
        without: own_identity,
    },
    Asked {
        capability: privileges::DAC_OVERRIDE,
        purpose: "to write files wherever root may, if root itself asks for them",
        when: When::Failure,
        without: |_| Finding::ok(format!("{}; files are written where it may", not_held())),
    },
];

pub(super) fn facts() -> Vec<Fact> {
    let capabilities = ASKED.iter().map(|asked| {
        let Asked { capability, purpose, when, .. } = asked;
        Fact { when: *when, ..Fact::new(capability.name, *purpose, |_| asked.look()) }
    });
    capabilities.chain([Fact::new("bpf(2)", "to speak with the kernel", bpf)]).collect()
}

impl Asked {
    fn look(&self) -> Finding {
        let Capability { name, set, or, .. } = self.capability;
        match capabilities(None) {
            Ok(held) if held.effective.intersects(set | or) => Finding::ok("held"),
            Ok(_) => (self.without)(name),
            Err(error) => Finding::unknown(format!("capget: {error}")),
        }
    }
}

fn not_held() -> String {
    format!("uid {} does not have it", geteuid())
}

/// How this process, started as it was, gets a capability.
fn grant(name: &str) -> String {
    let known = privileges::ALL.iter().find(|capability| capability.name == name);
    let is_withheld = |capability: &Capability| {
        capability_is_in_bounding_set(capability.set).is_ok_and(|is_there| !is_there)
    };
    if known.is_some_and(is_withheld) {
        let name = name.trim_start_matches("CAP_");
        return format!("give it to the container (docker run --cap-add={name}, or --privileged)");
    }
    rights()
}

/// How this process, started as it was, gets what the kernel refuses it.
pub(super) fn rights() -> String {
    if geteuid().is_root() {
        "start it as root with all capabilities, outside of what has taken them away".to_owned()
    } else if no_new_privs().unwrap_or(false) {
        "start it without no_new_privs, under which neither sudo nor setcap gives rights".to_owned()
    } else {
        let sudo = "put sudo before the command";
        let is_nosuid = |own: &PathBuf| {
            statvfs(own).is_ok_and(|facts| facts.flags().contains(FsFlags::ST_NOSUID))
        };
        // There, the kernel does not look at what the file has.
        match std::env::current_exe() {
            Ok(own) if !is_nosuid(&own) => format!(
                "{sudo}, or give the program its rights: sudo setcap {LEAST}=ep {}",
                shown(own.as_os_str())
            ),
            _ => sudo.to_owned(),
        }
    }
}

/// Whether this process cannot become another user.
fn is_one_user() -> bool {
    let held = capabilities(None).map_or_else(|_| CapabilitySet::empty(), |held| held.effective);
    !geteuid().is_root() && !held.contains(CapabilitySet::SETUID)
}

/// Without CAP_SETUID or CAP_SETGID.
fn own_identity(name: &'static str) -> Finding {
    if is_one_user() {
        return Finding::ok(format!("{}, nor a user to become", not_held()));
    }
    let instead = "under sudo, and with --user, it starts no command and writes no file";
    Finding::degraded(not_held(), instead).mended_by(grant(name))
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
    use crate::host::privileges::Kept;

    #[test]
    fn the_page_on_limitations_has_the_least_that_it_takes() {
        let page = include_str!("../../../docs/limitations.md");
        assert!(page.contains(&format!("sudo setcap {LEAST}=ep")), "{LEAST}");
        for name in LEAST.split(',') {
            let name = name.to_uppercase();
            assert!(privileges::ALL.iter().any(|capability| capability.name == name), "{name}");
        }
    }

    #[test]
    fn the_page_on_limitations_says_what_is_kept() {
        let page = include_str!("../../../docs/limitations.md");
        let told = |kept| match kept {
            Kept::No => "no",
            Kept::Always => "always",
            Kept::Aside => "x86_64: out of effect, for when the first 32-bit program runs",
            Kept::ToReadMaps => {
                "the same; in effect where the kernel asks for it to read maps (before 5.19)"
            }
            Kept::WithCommand => "with a command",
            Kept::InViewUnderSudo => "in the view, under sudo: to export",
            Kept::InViewElse => "in the view, not under sudo: to export",
        };
        for Asked { capability: Capability { name, kept, .. }, purpose, .. } in ASKED {
            let row = format!("| {name} | {} |\n", told(kept));
            assert!(page.contains(&row), "not in docs/limitations.md, for {purpose}:\n{row}");
        }
    }

    #[test]
    fn every_capability_is_asked_for() {
        let asked: Vec<_> = ASKED.iter().map(|asked| asked.capability.name).collect();
        assert_eq!(asked, privileges::ALL.map(|capability| capability.name));
    }
}
