//! Takes from the helper what it does not need: it parses files that others chose.

use std::io;

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// The most memory, with mapped files.
const MEMORY_BYTES: u64 = 2 << 30;
/// The most open files: those of one request, and a few.
const FILES: u64 = 64;
/// The user and group nobody.
const NOBODY: u32 = 65534;

/// Drops all privileges for good, ends with the parent, and limits resources.
pub(crate) fn confine() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    close_all_but_stdio()?;
    prctl::set_no_new_privs()?;
    // Without CAP_SETPCAP, no_new_privs alone keeps capabilities from coming back.
    for bit in 0..u64::BITS {
        let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit));
    }
    if geteuid().is_root() {
        // A user namespace can lack nobody: then root without capabilities remains.
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let _ = setgroups(&[]).and_then(|()| setresgid(group, group, group));
        let _ = setresuid(user, user, user);
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    let _ = clear_ambient_capability_set();
    // After the change of user, which resets it.
    prctl::set_dumpable(false)?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    for (resource, limit) in [
        (Resource::RLIMIT_AS, MEMORY_BYTES),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, FILES),
        (Resource::RLIMIT_NPROC, 0),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    Ok(())
}

fn close_all_but_stdio() -> io::Result<()> {
    // SAFETY: closes the fds above stderr, which nothing in this process has opened: it has just begun.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
