//! What this process may do once tracing is live: what it still needs, and nothing more ever again.

use anyhow::Context as _;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

use crate::check::{self, Keeps, Work};

/// Gives up the capabilities that a session of that kind needs no more ([`check::kept`]), and what
/// an exec could give. To be called before there are threads: each has its own, from its maker.
///
/// `reads_maps` tries to read a map: before 5.19 that can take a capability, by the sysctl
/// kernel.unprivileged_bpf_disabled.
pub fn give_up(work: Work, reads_maps: impl FnOnce() -> bool) -> anyhow::Result<()> {
    let held = capabilities(None).context("cannot read our capabilities")?.permitted;
    let least = check::kept(held, work, false);
    set(Keeps { permitted: held, ..least })?;
    let kept = if reads_maps() { least } else { check::kept(held, work, true) };
    set_no_new_privs(true).context("cannot forbid new privileges")?;
    set(kept)
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
