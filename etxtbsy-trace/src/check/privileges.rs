//! What this user may do: capabilities(7).

use std::path::PathBuf;

use aya::{maps::MapType, sys::is_map_supported};
use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::geteuid,
};
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set, no_new_privs};

use super::{Fact, Finding, Machine, When};
use crate::{cli::shown, kernel::memlock};

/// A capability that is of use.
struct Capability {
    name: &'static str,
    purpose: &'static str,
    set: CapabilitySet,
    /// Another one that includes it, if there is one.
    or: CapabilitySet,
    kept: Kept,
    when: When,
    /// What it is without.
    without: fn(&'static str) -> Finding,
}

/// Whether a capability is kept once tracing is live.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    No,
    /// Out of effect, while a program may have to be loaded yet: one for 32-bit programs.
    Aside,
    /// To look up in /proc what is told of processes.
    Always,
    /// Where the kernel asks for it; else as [`Kept::Aside`].
    ToReadMaps,
    /// While there is a command.
    WithCommand,
    /// While the view can be asked to write a file for the user who called sudo.
    InViewUnderSudo,
    /// While the view can be asked to write a file for this user.
    InViewElse,
}

/// What a session does besides tracing.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a thing that a session does or not")]
pub struct Work {
    /// It runs a command.
    pub command: bool,
    /// It is shown in the view.
    pub view: bool,
    /// Files are written for the user who called sudo.
    pub sudo: bool,
    /// It may load a program.
    pub loads: bool,
}

/// What a session keeps once tracing is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// In effect.
    pub effective: CapabilitySet,
    /// These, and what it may put into effect.
    pub permitted: CapabilitySet,
}

/// All that it takes where tracefs is mounted, as setcap(8) has them.
const LEAST: &str = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search";

const CAPABILITIES: [Capability; 9] = [
    Capability {
        name: "CAP_BPF",
        purpose: "to load eBPF programs and make their maps",
        set: CapabilitySet::BPF,
        or: CapabilitySet::SYS_ADMIN,
        kept: Kept::ToReadMaps,
        when: When::Start,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Capability {
        name: "CAP_PERFMON",
        purpose: "to attach to tracepoints, and to read the kernel's memory there",
        set: CapabilitySet::PERFMON,
        or: CapabilitySet::SYS_ADMIN,
        kept: Kept::Aside,
        when: When::Start,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        purpose: "to read in /proc which programs other users' processes run",
        set: CapabilitySet::SYS_PTRACE,
        or: CapabilitySet::empty(),
        kept: Kept::Always,
        when: When::Start,
        without: |name| {
            let instead =
                "exe, cwd and fds of processes that /proc closes to this user stay unknown";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        },
    },
    Capability {
        name: "CAP_SYS_RESOURCE",
        purpose: "to lift RLIMIT_MEMLOCK, against which eBPF maps count before 5.11",
        set: CapabilitySet::SYS_RESOURCE,
        or: CapabilitySet::empty(),
        kept: Kept::No,
        when: When::Start,
        without: unlimited,
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        purpose: "to look at files and fds that only their owner may look at",
        set: CapabilitySet::DAC_READ_SEARCH,
        or: CapabilitySet::DAC_OVERRIDE,
        kept: Kept::Always,
        when: When::Failure,
        without: |name| {
            let instead = "a file in another user's private directory, and the rings of io_uring \
                           of other users, stay unknown";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        },
    },
    Capability {
        name: "CAP_KILL",
        purpose: "to pass signals on to a command that runs as another user",
        set: CapabilitySet::KILL,
        or: CapabilitySet::empty(),
        kept: Kept::WithCommand,
        when: When::Failure,
        without: |name| {
            if is_one_user() {
                return Finding::ok(format!("{}; a command runs as this user", not_held()));
            }
            let instead = "such a command gets no signals that are sent to the tracer alone";
            Finding::degraded(not_held(), instead).mended_by(grant(name))
        },
    },
    Capability {
        name: "CAP_SETUID",
        purpose: "to run a command and write files as the user who called sudo",
        set: CapabilitySet::SETUID,
        or: CapabilitySet::empty(),
        kept: Kept::InViewUnderSudo,
        when: When::Failure,
        without: own_identity,
    },
    Capability {
        name: "CAP_SETGID",
        purpose: "to do so with that user's groups",
        set: CapabilitySet::SETGID,
        or: CapabilitySet::empty(),
        kept: Kept::InViewUnderSudo,
        when: When::Failure,
        without: own_identity,
    },
    Capability {
        name: "CAP_DAC_OVERRIDE",
        purpose: "to write files wherever root may, if root itself asks for them",
        set: CapabilitySet::DAC_OVERRIDE,
        or: CapabilitySet::empty(),
        kept: Kept::InViewElse,
        when: When::Failure,
        without: |_| Finding::ok(format!("{}; files are written where it may", not_held())),
    },
];

pub(super) fn facts() -> Vec<Fact> {
    let capabilities = CAPABILITIES.iter().map(|capability| {
        let Capability { name, purpose, when, .. } = *capability;
        Fact { when, ..Fact::new(name, purpose, move |_| capability.look()) }
    });
    capabilities.chain([Fact::new("bpf(2)", "to speak with the kernel", bpf)]).collect()
}

/// Of the capabilities `held`, those that a session of that kind needs once tracing is live;
/// `maps` says whether the kernel asks for one to let their owner read maps.
#[must_use]
pub fn kept(held: CapabilitySet, work: Work, maps: bool) -> Keeps {
    let of = |is: &dyn Fn(Kept) -> bool| {
        let kept = CAPABILITIES.iter().filter(|capability| is(capability.kept));
        kept.fold(CapabilitySet::empty(), |kept, capability| {
            kept | if held.contains(capability.set) { capability.set } else { held & capability.or }
        })
    };
    let effective = of(&|kept| kept.is_in_effect(work, maps));
    Keeps { effective, permitted: effective | of(&|kept| work.loads && kept.is_for_loading()) }
}

impl Kept {
    fn is_in_effect(self, work: Work, maps: bool) -> bool {
        match self {
            Self::No | Self::Aside => false,
            Self::Always => true,
            Self::ToReadMaps => maps,
            Self::WithCommand => work.command,
            Self::InViewUnderSudo => work.view && work.sudo,
            Self::InViewElse => work.view && !work.sudo,
        }
    }

    fn is_for_loading(self) -> bool {
        matches!(self, Self::Aside | Self::ToReadMaps)
    }
}

impl Capability {
    fn look(&self) -> Finding {
        match capabilities(None) {
            Ok(held) if held.effective.intersects(self.set | self.or) => Finding::ok("held"),
            Ok(_) => (self.without)(self.name),
            Err(error) => Finding::unknown(format!("capget: {error}")),
        }
    }
}

fn not_held() -> String {
    format!("uid {} does not have it", geteuid())
}

/// How this process, started as it was, gets a capability.
fn grant(name: &str) -> String {
    let known = CAPABILITIES.iter().find(|capability| capability.name == name);
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

    const ALL: CapabilitySet = CapabilitySet::all();

    #[test]
    fn what_includes_another_stands_for_it() {
        let kept = |held| kept(held, Work::default(), true).permitted;
        let (admin, own) = (CapabilitySet::SYS_ADMIN, CapabilitySet::DAC_OVERRIDE);
        let read = CapabilitySet::DAC_READ_SEARCH;
        assert_eq!(kept(admin), admin);
        assert_eq!(kept(admin | CapabilitySet::BPF), CapabilitySet::BPF);
        assert_eq!(kept(own), own);
        assert_eq!(kept(own | read), read);
        assert_eq!(kept(CapabilitySet::empty()), CapabilitySet::empty());
    }

    #[test]
    fn each_kind_of_session_keeps_its_own() {
        let always = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        let more = |command, view, sudo| {
            let work = Work { command, view, sudo, loads: false };
            let Keeps { effective, permitted } = kept(ALL, work, false);
            assert!(effective.contains(always) && permitted == effective);
            let loads = kept(ALL, Work { loads: true, ..work }, false);
            let aside = CapabilitySet::BPF | CapabilitySet::PERFMON;
            assert_eq!(loads, Keeps { effective, permitted: effective | aside });
            effective - always
        };
        let identity = CapabilitySet::SETUID | CapabilitySet::SETGID;
        assert_eq!(more(false, false, true), CapabilitySet::empty());
        assert_eq!(more(true, false, true), CapabilitySet::KILL);
        assert_eq!(more(false, true, true), identity);
        assert_eq!(more(true, true, false), CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE);
    }

    #[test]
    fn the_page_on_limitations_has_the_least_that_it_takes() {
        let page = include_str!("../../../docs/limitations.md");
        assert!(page.contains(&format!("sudo setcap {LEAST}=ep")), "{LEAST}");
        for name in LEAST.split(',') {
            let name = name.to_uppercase();
            assert!(CAPABILITIES.iter().any(|capability| capability.name == name), "{name}");
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
        for Capability { name, purpose, kept, .. } in CAPABILITIES {
            let row = format!("| {name} | {} |\n", told(kept));
            assert!(page.contains(&row), "not in docs/limitations.md, for {purpose}:\n{row}");
        }
    }
}
