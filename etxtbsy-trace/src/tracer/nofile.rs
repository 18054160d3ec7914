//! RLIMIT_NOFILE, against which each program, map and attachment counts: some 120.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises it as far as anybody may, for this process and those that it starts later.
pub fn raise() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}
