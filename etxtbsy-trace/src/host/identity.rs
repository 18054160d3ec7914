//! Who called sudo, and the user that the traced command runs as.

use super::{
    login, sudo,
    user::{Invoker, Sudo, groups},
};
use crate::text::shown;
use anyhow::{Result, anyhow, bail};
use nix::unistd::{Gid, Uid, User};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

/// Whom to run the traced command as: `user` (`--user`: a name or a uid), else who called sudo.
/// `None` is the user that we are.
pub fn for_command(user: Option<&str>) -> Result<Option<Invoker>> {
    let Some(user) = user else {
        let mut caller = Invoker::of_sudo()?;
        if let Some(caller) = &mut caller
            && matches!(caller.sudo, Sudo::Unknown { .. })
        {
            let path = login::path(caller);
            if let Sudo::Unknown { login, .. } = &mut caller.sudo {
                *login = Some(path);
            }
        }
        return Ok(caller);
    };
    let invoker = Invoker::named(user)?;
    let euid = Uid::effective();
    if euid.is_root() {
        Ok(Some(invoker))
    } else if euid == invoker.uid {
        Ok(None)
    } else {
        bail!(
            "only root may run a command as {user}, and this is uid {euid}; put sudo before etxtbsy-trace"
        )
    }
}

impl Invoker {
    /// The user who called sudo; `None` if nobody did, or root.
    pub fn of_sudo() -> Result<Option<Self>> {
        let Some(caller) = sudo_caller(Uid::effective(), |name| std::env::var_os(name))? else {
            return Ok(None);
        };
        let by_name = match caller.name.to_str() {
            Some(name) => User::from_name(name)?.filter(|account| account.uid == caller.uid),
            None => None,
        };
        // Not in the database is no error: sudo has let this user in, and the kernel needs ids only.
        let account = match by_name {
            Some(account) => Some(account),
            None => User::from_uid(caller.uid)?,
        };
        let (home, shell) = account.map(|account| (account.dir, account.shell)).unzip();
        Ok(Some(Self {
            uid: caller.uid,
            gid: caller.gid,
            groups: groups(&caller.name, caller.gid)?,
            name: caller.name,
            home,
            shell,
            sudo: sudo::Change::find(caller.uid)
                .map_or_else(|why| Sudo::Unknown { why, login: None }, Sudo::Known),
        }))
    }

    /// The environment of this user's command, from our own: what sudo took away is there again, as far
    /// as it is known; the user's name, home and shell; nothing of what sudo and root's login put there about root.
    pub fn environment(
        &self,
        ours: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        const REPLACED: [&str; 5] = ["USER", "LOGNAME", "HOME", "SHELL", "MAIL"];
        let mut ours: Vec<_> = ours.into_iter().collect();
        if let Sudo::Unknown { login: Some(login), .. } = &self.sudo {
            // Behind what is there: that may have been chosen.
            for (_, path) in ours.iter_mut().filter(|(name, _)| name == "PATH") {
                *path = login::extended(path, login);
            }
        }
        let (ours, before) = match &self.sudo {
            Sudo::Known(change) => (change.undone(ours), Some(change)),
            Sudo::None | Sudo::Unknown { .. } => (ours, None),
        };
        let personal = |name: &str, known: Option<OsString>| {
            let value = before.and_then(|change| change.before(name)).map(OsStr::to_owned);
            Some((name.into(), value.or(known)?))
        };
        let is_kept = |name: &OsStr| {
            !REPLACED.iter().any(|replaced| name == *replaced)
                && !name.as_bytes().starts_with(b"SUDO_")
        };
        let restored = [
            personal("USER", Some(self.name.clone())),
            personal("LOGNAME", Some(self.name.clone())),
            personal("HOME", self.home.clone().map(OsString::from)),
            personal("SHELL", self.shell.clone().map(OsString::from)),
            personal("MAIL", None),
        ];
        ours.into_iter()
            .filter(|(name, _)| is_kept(name))
            .chain(restored.into_iter().flatten())
            .collect()
    }

    /// What to know about the PATH of this user's command: where it is not the user's own, why, and what
    /// to do.
    #[must_use]
    pub fn about_path(&self) -> Option<String> {
        let Sudo::Unknown { why, login } = &self.sudo else { return None };
        let login = login.as_ref().map_or("", |_| " and of a login");
        Some(format!(
            "the PATH is that of sudo{login}, for {why}; give CMD with its directory, or call: \
             sudo env \"PATH=$PATH\" etxtbsy-trace run …"
        ))
    }
}

/// What sudo's variables say.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// `SUDO_UID`: not root.
    pub uid: Uid,
    /// `SUDO_GID`.
    pub gid: Gid,
    /// `SUDO_USER`.
    pub name: OsString,
}

/// Reads sudo's variables through `env`. `None` if we are not root, some are missing, or root
/// called sudo. An error if they are there and make no sense: the answer must not be root then.
pub fn sudo_caller(euid: Uid, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<Caller>> {
    if !euid.is_root() {
        return Ok(None);
    }
    let (Some(uid), Some(gid), Some(name)) = (env("SUDO_UID"), env("SUDO_GID"), env("SUDO_USER"))
    else {
        return Ok(None);
    };
    let uid = id("SUDO_UID", &uid)?;
    let gid = id("SUDO_GID", &gid)?;
    Ok((uid != 0).then(|| Caller { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), name }))
}

/// An id from a variable; not the one that means "no change" to the kernel.
fn id(variable: &str, value: &OsStr) -> Result<u32> {
    value.to_str().and_then(|text| text.parse().ok()).filter(|id| *id != u32::MAX).ok_or_else(|| {
        anyhow!(
            "{variable} is {}, which is no id; unset it, or say whom to run as: run --user USER",
            shown(value)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUDO: [(&str, &str); 3] =
        [("SUDO_UID", "1000"), ("SUDO_GID", "100"), ("SUDO_USER", "ann")];

    fn caller(euid: u32, env: &[(&str, &str)]) -> Result<Option<Caller>> {
        sudo_caller(Uid::from_raw(euid), |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn sudo_names_its_caller() {
        let found = caller(0, &SUDO).unwrap();
        let ann = Caller { uid: Uid::from_raw(1000), gid: Gid::from_raw(100), name: "ann".into() };
        assert_eq!(found, Some(ann));
    }

    #[test]
    fn without_sudo_there_is_no_caller() {
        assert_eq!(caller(0, &[]).unwrap(), None);
        assert_eq!(caller(0, &SUDO[..2]).unwrap(), None);
        // Left over in the environment of someone who is not root.
        assert_eq!(caller(1000, &SUDO).unwrap(), None);
    }

    #[test]
    fn root_may_call_sudo() {
        let root = [("SUDO_UID", "0"), ("SUDO_GID", "0"), ("SUDO_USER", "root")];
        assert_eq!(caller(0, &root).unwrap(), None);
    }

    #[test]
    fn malformed_ids_of_sudo_are_refused() {
        for bad in ["", "ann", "-1", "4294967295", "4294967296", "1\n2"] {
            let env = [("SUDO_UID", bad), SUDO[1], SUDO[2]];
            let error = caller(0, &env).unwrap_err().to_string();
            assert!(error.contains("SUDO_UID") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn users_have_names_and_numbers() {
        let nobody = Invoker::named("nobody").unwrap();
        assert!(!nobody.uid.is_root());
        assert!(nobody.groups.contains(&nobody.gid));
        assert_eq!(Invoker::named(&nobody.uid.to_string()).unwrap(), nobody);
    }

    #[test]
    fn an_unknown_user_is_one_line() {
        for bad in ["no-such-user", "4294967294", "", "a\nb"] {
            let error = format!("{:#}", Invoker::named(bad).unwrap_err());
            assert!(error.starts_with("no user ") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_environment_is_the_users() {
        let mut ann = Invoker {
            uid: Uid::from_raw(1000),
            gid: Gid::from_raw(100),
            groups: vec![],
            name: "ann".into(),
            home: Some("/home/ann".into()),
            shell: Some("/bin/zsh".into()),
            sudo: Sudo::None,
        };
        let ours = || {
            [
                ("PATH", "/bin"),
                ("HOME", "/root"),
                ("SUDO_UID", "1000"),
                ("SHELL", "/bin/sh"),
                ("SUDOKU", "x"),
                ("MAIL", "r"),
            ]
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        };
        let pairs = |list: &[(&str, &str)]| -> Vec<(OsString, OsString)> {
            list.iter().map(|(name, value)| (name.into(), value.into())).collect()
        };
        let common = [("PATH", "/bin"), ("SUDOKU", "x"), ("USER", "ann"), ("LOGNAME", "ann")];
        let known = [&common[..], &[("HOME", "/home/ann"), ("SHELL", "/bin/zsh")]].concat();
        assert_eq!(ann.environment(ours()), pairs(&known));
        (ann.home, ann.shell) = (None, None);
        assert_eq!(ann.environment(ours()), pairs(&common));
    }
}
