//! What sudo did to the environment: it replaces PATH (`secure_path`), and takes away what is not on its
//! list (`env_reset`). sudo's own process has the environment in which it was called.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use nix::unistd::{Uid, getppid};
use procfs::process::Process;

/// Variables, in their order.
pub type Variables = Vec<(OsString, OsString)>;

/// An environment before sudo, and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// That in which sudo was called.
    before: Variables,
    /// That which it gave the program it started.
    given: Variables,
    /// Names that its caller gave values to on its command line.
    chosen: Vec<OsString>,
}

impl Change {
    /// What the sudo did that `uid` called and that we descend from; an error says why that cannot be
    /// known, to follow "for".
    pub fn find(uid: Uid) -> Result<Self, String> {
        let (sudo, child) = nearest()?;
        let ours = std::process::id().cast_signed();
        let given = if child == ours { std::env::vars_os().collect() } else { environ(child)? };
        // Else the variables by which we know the user are those of another sudo, or made up.
        if value(&given, "SUDO_UID").is_none_or(|text| text != uid.to_string().as_str()) {
            return Err(format!("sudo (process {sudo}) was not called by uid {uid}"));
        }
        Ok(Self::of(&read(sudo, "environ")?, &read(sudo, "cmdline")?, given))
    }

    /// From sudo's own environment and command line, as /proc has them, and what it gave its program.
    #[must_use]
    pub fn of(before: &[u8], command_line: &[u8], given: Variables) -> Self {
        let chosen = variables(command_line).into_iter().map(|(name, _)| name).collect();
        Self { before: variables(before), given, chosen }
    }

    /// The value of a variable when sudo was called.
    #[must_use]
    pub fn before(&self, name: &str) -> Option<&OsStr> {
        value(&self.before, name)
    }

    /// `ours` with what sudo changed or took away as it was before; what was chosen on its command line,
    /// or changed after it, is left as it is.
    #[must_use]
    pub fn undone(&self, ours: Variables) -> Variables {
        let of =
            |variables: &Variables, name: &OsString| value(variables, name).map(OsStr::to_owned);
        let missing: Variables = self
            .before
            .iter()
            .filter(|(name, _)| of(&ours, name).is_none() && of(&self.given, name).is_none())
            .cloned()
            .collect();
        let undo = |(name, now): (OsString, OsString)| {
            let is_sudos =
                of(&self.given, &name).as_ref() == Some(&now) && !self.chosen.contains(&name);
            let before = is_sudos.then(|| of(&self.before, &name)).flatten();
            (name, before.unwrap_or(now))
        };
        ours.into_iter().map(undo).chain(missing).collect()
    }
}

/// The nearest sudo among our ancestors, and its child from which we descend.
fn nearest() -> Result<(i32, i32), String> {
    /// More than there can be between a sudo and what it started.
    const DEPTH: usize = 64;
    let (mut child, mut pid) = (std::process::id().cast_signed(), getppid().as_raw());
    for _ in 0..DEPTH {
        let Ok(stat) = Process::new(pid).and_then(|process| process.stat()) else { break };
        if ["sudo", "sudo-rs"].contains(&stat.comm.as_str()) {
            return Ok((pid, child));
        }
        (child, pid) = (pid, stat.ppid);
    }
    Err("sudo is no longer there to be asked".to_owned())
}

fn environ(pid: i32) -> Result<Variables, String> {
    Ok(variables(&read(pid, "environ")?))
}

/// What /proc has of a process by that name.
fn read(pid: i32, name: &str) -> Result<Vec<u8>, String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read(&path).map_err(|error| format!("{path} cannot be read: {error}"))
}

/// The words that define a variable, of those that end in NUL.
#[must_use]
pub fn variables(words: &[u8]) -> Variables {
    words
        .split(|byte| *byte == 0)
        .filter_map(|word| {
            let at = word.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
            let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((text(&word[..at]), text(&word[at + 1..])))
        })
        .collect()
}

fn value(variables: &Variables, name: impl AsRef<OsStr>) -> Option<&OsStr> {
    let name = name.as_ref().as_bytes();
    variables.iter().find(|(key, _)| key.as_bytes() == name).map(|(_, value)| value.as_os_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Variables {
        list.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn what_sudo_changed_is_undone_and_nothing_else() {
        let change = Change {
            before: pairs(&[
                ("PATH", "/home/ann/.cargo/bin:/bin"),
                ("RUSTFLAGS", "-g"),
                ("TERM", "xterm"),
                ("MODE", "a"),
                ("UNSET", "u"),
                ("LATER", "b"),
            ]),
            given: pairs(&[
                ("PATH", "/bin"),
                ("TERM", "xterm"),
                ("MODE", "chosen"),
                ("UNSET", "u"),
                ("LATER", "b"),
                ("LANG", "C"),
            ]),
            chosen: vec!["MODE".into()],
        };
        let ours = [("PATH", "/bin"), ("TERM", "xterm"), ("MODE", "chosen"), ("LATER", "c")];
        let undone = change.undone(pairs(&[&ours[..], &[("LANG", "C"), ("NEW", "n")]].concat()));
        let wanted = [
            ("PATH", "/home/ann/.cargo/bin:/bin"),
            ("TERM", "xterm"),
            ("MODE", "chosen"),
            ("LATER", "c"),
            ("LANG", "C"),
            ("NEW", "n"),
            ("RUSTFLAGS", "-g"),
        ];
        assert_eq!(undone, pairs(&wanted));
        assert_eq!(change.before("PATH").unwrap(), "/home/ann/.cargo/bin:/bin");
    }

    #[test]
    fn only_words_with_a_name_define_a_variable() {
        let found = variables(b"sudo\0A=1\0=x\0B=\0\0C=a=b\0--opt=3");
        assert_eq!(found, pairs(&[("A", "1"), ("B", ""), ("C", "a=b"), ("--opt", "3")]));
        assert_eq!(variables(b""), []);
    }
}
