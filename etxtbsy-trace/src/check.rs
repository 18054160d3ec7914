//! What this kernel and this user can do. Every start runs the same checks before it loads
//! anything, and stops at the first that fails.

use anyhow::{Context as _, bail};
use caps_of::Capability;

use crate::{
    kernel::{
        offsets,
        tracer::{Options, Tracer},
    },
    teach,
};

/// A thing that tracing needs.
pub struct Need {
    /// Its name.
    pub name: &'static str,
    /// Says what was found, or what is missing and how to mend it.
    pub check: fn() -> anyhow::Result<String>,
}

/// What can be told at once, in the order in which it matters.
pub const NEEDS: [Need; 3] = [
    Need { name: "privileges", check: privileges },
    Need { name: "kernel BTF", check: btf },
    Need { name: "ETXTBSY", check: denies },
];

/// Fails with the first need that is not met.
pub fn start() -> anyhow::Result<()> {
    // The tracer finds out the others by itself, and says the same.
    privileges().map(drop)
}

/// Checks everything, a line each; true if tracing will work.
pub fn report(out: &mut dyn std::io::Write) -> std::io::Result<bool> {
    let mut works = true;
    for need in &NEEDS {
        works &= tell(out, need.name, &(need.check)())?;
    }
    if works {
        works = tell(out, "eBPF programs", &loads())?;
    }
    Ok(works)
}

fn tell(
    out: &mut dyn std::io::Write,
    name: &str,
    found: &anyhow::Result<String>,
) -> std::io::Result<bool> {
    match found {
        Ok(found) => writeln!(out, "ok       {name:<14} {found}")?,
        Err(error) => writeln!(out, "missing  {name:<14} {error:#}")?,
    }
    Ok(found.is_ok())
}

fn privileges() -> anyhow::Result<String> {
    let held = caps_of::effective().context("cannot read /proc/self/status")?;
    let missing: Vec<&str> =
        Capability::NEEDED.iter().filter(|need| !need.is_in(held)).map(|need| need.name).collect();
    if !missing.is_empty() {
        bail!(
            "loading eBPF programs needs {}, and uid {} does not have it: put sudo before the command",
            missing.join(" and "),
            nix::unistd::geteuid()
        );
    }
    Ok(format!("uid {} with the capabilities for eBPF", nix::unistd::geteuid()))
}

fn btf() -> anyhow::Result<String> {
    offsets::resolve(&offsets::running_kernel()?)?;
    Ok(format!("{}, all fields found", offsets::VMLINUX))
}

fn denies() -> anyhow::Result<String> {
    teach::busy_exec(|_| Ok(()))?;
    Ok("this kernel refuses to run a file that is open for writing".to_owned())
}

fn loads() -> anyhow::Result<String> {
    Tracer::start(&Options::default())?;
    Ok("loaded, attached, and a failure seen".to_owned())
}

/// The capabilities of this process.
mod caps_of {
    /// A capability, or one that includes it.
    pub(super) struct Capability {
        pub(super) name: &'static str,
        bits: u64,
    }

    /// `CAP_SYS_ADMIN`, include/uapi/linux/capability.h: includes the next two.
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    const SYS_PTRACE: u64 = 1 << 19;

    impl Capability {
        pub(super) const NEEDED: [Self; 3] = [
            Self { name: "CAP_BPF", bits: BPF | SYS_ADMIN },
            Self { name: "CAP_PERFMON", bits: PERFMON | SYS_ADMIN },
            Self { name: "CAP_SYS_PTRACE", bits: SYS_PTRACE },
        ];

        pub(super) fn is_in(&self, held: u64) -> bool {
            held & self.bits != 0
        }
    }

    pub(super) fn effective() -> anyhow::Result<u64> {
        Ok(procfs::process::Process::myself()?.status()?.capeff)
    }
}
