//! Capabilities that this program uses, and which of them a session keeps once tracing is live.

use anyhow::Context as _;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

/// A capability that is of use, capabilities(7).
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// Its name, such as `CAP_BPF`.
    pub name: &'static str,
    /// The capability as a set.
    pub set: CapabilitySet,
    /// Another one that includes it; empty if there is none.
    pub or: CapabilitySet,
    /// Whether a session keeps it.
    pub kept: Kept,
}

/// CAP_BPF.
pub const BPF: Capability = Capability {
    name: "CAP_BPF",
    set: CapabilitySet::BPF,
    or: CapabilitySet::SYS_ADMIN,
    kept: Kept::ToReadMaps,
};
/// CAP_PERFMON.
pub const PERFMON: Capability = Capability {
    name: "CAP_PERFMON",
    set: CapabilitySet::PERFMON,
    or: CapabilitySet::SYS_ADMIN,
    kept: Kept::Aside,
};
/// CAP_SYS_PTRACE.
pub const SYS_PTRACE: Capability = Capability {
    name: "CAP_SYS_PTRACE",
    set: CapabilitySet::SYS_PTRACE,
    or: CapabilitySet::empty(),
    kept: Kept::Always,
};
/// CAP_SYS_RESOURCE.
pub const SYS_RESOURCE: Capability = Capability {
    name: "CAP_SYS_RESOURCE",
    set: CapabilitySet::SYS_RESOURCE,
    or: CapabilitySet::empty(),
    kept: Kept::No,
};
/// CAP_DAC_READ_SEARCH.
pub const DAC_READ_SEARCH: Capability = Capability {
    name: "CAP_DAC_READ_SEARCH",
    set: CapabilitySet::DAC_READ_SEARCH,
    or: CapabilitySet::DAC_OVERRIDE,
    kept: Kept::Always,
};
/// CAP_CHECKPOINT_RESTORE (5.9 on).
pub const CHECKPOINT_RESTORE: Capability = Capability {
    name: "CAP_CHECKPOINT_RESTORE",
    set: CapabilitySet::CHECKPOINT_RESTORE,
    or: CapabilitySet::empty(),
    kept: Kept::Always,
};
/// CAP_KILL.
pub const KILL: Capability = Capability {
    name: "CAP_KILL",
    set: CapabilitySet::KILL,
    or: CapabilitySet::empty(),
    kept: Kept::WithCommand,
};
/// CAP_SETUID.
pub const SETUID: Capability = Capability {
    name: "CAP_SETUID",
    set: CapabilitySet::SETUID,
    or: CapabilitySet::empty(),
    kept: Kept::ForFilesUnderSudo,
};
/// CAP_SETGID.
pub const SETGID: Capability = Capability {
    name: "CAP_SETGID",
    set: CapabilitySet::SETGID,
    or: CapabilitySet::empty(),
    kept: Kept::ForFilesUnderSudo,
};
/// CAP_DAC_OVERRIDE.
pub const DAC_OVERRIDE: Capability = Capability {
    name: "CAP_DAC_OVERRIDE",
    set: CapabilitySet::DAC_OVERRIDE,
    or: CapabilitySet::empty(),
    kept: Kept::ForFilesElse,
};

/// All of them.
pub const ALL: [Capability; 10] = [
    BPF,
    PERFMON,
    SYS_PTRACE,
    SYS_RESOURCE,
    DAC_READ_SEARCH,
    CHECKPOINT_RESTORE,
    KILL,
    SETUID,
    SETGID,
    DAC_OVERRIDE,
];

/// Whether a capability is kept once tracing is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Given up.
    No,
    /// Out of effect, while a program may have to be loaded yet: one for 32-bit programs.
    Aside,
    /// To read in /proc what an incident says of processes.
    Always,
    /// Where the kernel asks for it; else as [`Kept::Aside`].
    ToReadMaps,
    /// While there is a command.
    WithCommand,
    /// While a file may have to be created for the user who called sudo.
    ForFilesUnderSudo,
    /// While a file may have to be created for this user.
    ForFilesElse,
}

/// What a session does besides tracing.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a thing that a session does or not")]
pub struct SessionKind {
    /// It runs a command.
    pub command: bool,
    /// It may create files: the view can be asked to, and `--output` is rotated or opened again.
    pub files: bool,
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

/// Of the capabilities `held`, those that a session of that kind needs once tracing is live;
/// `maps` says whether the kernel asks for one to let their owner read maps.
#[must_use]
pub fn kept(held: CapabilitySet, work: SessionKind, maps: bool) -> Keeps {
    let of = |is: &dyn Fn(Kept) -> bool| {
        let kept = ALL.iter().filter(|capability| is(capability.kept));
        kept.fold(CapabilitySet::empty(), |kept, capability| {
            kept | if held.contains(capability.set) { capability.set } else { held & capability.or }
        })
    };
    let effective = of(&|kept| kept.is_in_effect(work, maps));
    Keeps { effective, permitted: effective | of(&|kept| work.loads && kept.is_for_loading()) }
}

impl Kept {
    fn is_in_effect(self, work: SessionKind, maps: bool) -> bool {
        match self {
            Self::No | Self::Aside => false,
            Self::Always => true,
            Self::ToReadMaps => maps,
            Self::WithCommand => work.command,
            Self::ForFilesUnderSudo => work.files && work.sudo,
            Self::ForFilesElse => work.files && !work.sudo,
        }
    }

    fn is_for_loading(self) -> bool {
        matches!(self, Self::Aside | Self::ToReadMaps)
    }
}

/// Gives up the capabilities that a session of that kind needs no more ([`kept`]), and what
/// an exec could give. To be called before there are threads: each has its own, from its maker.
///
/// `reads_maps` tries to read a map: before 5.19 that can take a capability, by the sysctl
/// kernel.unprivileged_bpf_disabled.
pub fn give_up(work: SessionKind, reads_maps: impl FnOnce() -> bool) -> anyhow::Result<()> {
    let held = capabilities(None).context("cannot read our capabilities")?.permitted;
    let least = kept(held, work, false);
    set(Keeps { permitted: held, ..least })?;
    let needed = if reads_maps() { least } else { kept(held, work, true) };
    set_no_new_privs(true).context("cannot forbid new privileges")?;
    set(needed)
}

/// Does something with all that was kept, and gives up, in this thread, what was out of effect.
pub fn with_all<T>(work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let CapabilitySets { effective, permitted, .. } =
        capabilities(None).context("cannot read our capabilities")?;
    set(Keeps { effective: permitted, permitted })?;
    let done = work();
    set(Keeps { effective, permitted: effective })?;
    Ok(done)
}

fn set(Keeps { effective, permitted }: Keeps) -> anyhow::Result<()> {
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
        .context("cannot give up capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: CapabilitySet = CapabilitySet::all();

    #[test]
    fn what_includes_another_stands_for_it() {
        let kept = |held| kept(held, SessionKind::default(), true).permitted;
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
        let always = CapabilitySet::SYS_PTRACE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::CHECKPOINT_RESTORE;
        let more = |command, files, sudo| {
            let work = SessionKind { command, files, sudo, loads: false };
            let Keeps { effective, permitted } = kept(EVERY, work, false);
            assert!(effective.contains(always) && permitted == effective);
            let loads = kept(EVERY, SessionKind { loads: true, ..work }, false);
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
}
