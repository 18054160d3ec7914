//! Users, as the kernel and the user database know them.

use std::{
    ffi::{CString, OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::sudo;
use crate::text::shown;

/// A user to act as: the ids for the kernel, and what the environment says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoker {
    /// User.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// Supplementary groups, as initgroups(3) would set them.
    pub groups: Vec<Gid>,
    /// Login name.
    pub name: OsString,
    /// Home directory; `None` if the user is not in the user database.
    pub home: Option<PathBuf>,
    /// Login shell; `None` if the user is not in the user database.
    pub shell: Option<PathBuf>,
    /// What sudo did to the environment, if this is who called it.
    pub sudo: Sudo,
}

/// What sudo did to the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sudo {
    /// There was none.
    #[default]
    None,
    /// It is known.
    Known(sudo::Change),
    /// It cannot be known.
    Unknown {
        /// For that reason.
        why: String,
        /// The PATH that its caller has after a login, if that was looked for.
        login: Option<OsString>,
    },
}

impl Invoker {
    /// The user of that name, or else of that uid, in the user database.
    pub fn named(user: &str) -> Result<Self> {
        let by_name = User::from_name(user).with_context(|| format!("cannot look up {user}"))?;
        let account = match (by_name, user.parse()) {
            (Some(account), _) => Some(account),
            (None, Ok(uid)) => User::from_uid(Uid::from_raw(uid))?,
            (None, Err(_)) => None,
        };
        let Some(account) = account else {
            bail!("no user {}; `getent passwd` lists those there are", shown(OsStr::new(user)));
        };
        let name = OsString::from(account.name);
        Ok(Self {
            uid: account.uid,
            gid: account.gid,
            groups: groups(&name, account.gid)?,
            name,
            home: Some(account.dir),
            shell: Some(account.shell),
            sudo: Sudo::None,
        })
    }
}

pub(super) fn groups(name: &OsStr, gid: Gid) -> Result<Vec<Gid>> {
    let name = CString::new(name.as_bytes())?;
    getgrouplist(&name, gid).with_context(|| format!("cannot list the groups of {name:?}"))
}
