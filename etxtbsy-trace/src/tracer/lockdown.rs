//! The kernel's lockdown mode, kernel_lockdown(7).

use std::{fs, io};

use nix::{
    errno::Errno,
    sys::statfs::{SECURITYFS_MAGIC, statfs},
};

use crate::tracer::mounts::with_mount;

/// Where securityfs is mounted, or would be.
const SECURITYFS: &str = "/sys/kernel/security";

/// Where it shows the mode.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The mode: `none`, `integrity` or `confidentiality`; `None` if the kernel has no such thing.
pub fn mode() -> io::Result<Option<String>> {
    let shown = if statfs(SECURITYFS).is_ok_and(|fs| fs.filesystem_type() == SECURITYFS_MAGIC) {
        fs::read_to_string(LOCKDOWN)
    } else {
        match with_mount("securityfs", SECURITYFS, || fs::read_to_string(LOCKDOWN)) {
            // Built without securityfs, for which sysfs then has no place.
            Err(Errno::ENODEV | Errno::ENOENT) => return Ok(None),
            mounted => mounted?,
        }
    };
    match shown {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        shown => Ok(selected(&shown?).map(str::to_owned)),
    }
}

/// The one in brackets, of all that there are: `none [integrity] confidentiality`.
fn selected(shown: &str) -> Option<&str> {
    let (_, rest) = shown.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_the_one_in_brackets() {
        assert_eq!(selected("[none] integrity confidentiality\n"), Some("none"));
        assert_eq!(selected("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(selected("none integrity [confidentiality]\n"), Some("confidentiality"));
        for odd in ["", "none", "none [integrity", "]none["] {
            assert_eq!(selected(odd), None, "{odd}");
        }
    }
}
