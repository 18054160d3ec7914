//! Checks the command line, and the environment of the command under sudo.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use etxtbsy_trace::{
    cli::{args::Cli, presentation::presentation},
    host::{
        identity::sudo_caller,
        login, sudo,
        user::{Invoker, Sudo},
    },
    text::shown,
};
use nix::unistd::{Gid, Uid};

/// Separates the inputs; no valid UTF-8 contains it.
const SEPARATOR: u8 = 0xff;

/// Reads the bytes as arguments, sudo's environment, sudo's command line and its program's environment,
/// separated by 0xff, with words that end with NUL. Checks that errors contain no control characters, that
/// no user is root by mistake, and that the command gets the caller's environment.
pub fn command(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == SEPARATOR);
    let mut part = || parts.next().unwrap_or_default();
    arguments(part());
    let (before, command_line, given) = (part(), part(), sudo::variables(part()));
    environment(before, command_line, &given);
}

fn arguments(words: &[u8]) {
    let words = words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    for word in words.clone() {
        assert!(!shown(&word).chars().any(char::is_control), "{word:?}");
    }
    match Cli::from_args([OsString::from("etxtbsy-trace")].into_iter().chain(words)) {
        Ok(cli) => {
            presentation(&cli, true, false, |_| None);
        }
        Err(error) => {
            let _ = (error.exit_code(), error.render().to_string());
        }
    }
}

fn environment(before: &[u8], command_line: &[u8], given: &sudo::Variables) {
    let of = |variables: &sudo::Variables, name: &OsStr| {
        variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let caller = sudo_caller(Uid::from_raw(0), |name| of(given, OsStr::new(name)));
    let caller = match caller {
        Ok(Some(caller)) => caller,
        Ok(None) => return,
        Err(error) => {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
            return;
        }
    };
    assert!(!caller.uid.is_root());
    let change = sudo::Change::of(before, command_line, given.clone());
    let (before, chosen) = (sudo::variables(before), sudo::variables(command_line));
    let login = of(&before, OsStr::new("PATH"));
    for sudo in [
        Sudo::None,
        Sudo::Known(change),
        Sudo::Unknown { why: "sudo has ended".to_owned(), login: login.clone() },
    ] {
        let user = Invoker {
            uid: caller.uid,
            gid: Gid::from_raw(caller.gid.as_raw()),
            groups: Vec::new(),
            name: caller.name.clone(),
            home: None,
            shell: None,
            sudo,
        };
        let _ = user.about_path();
        let found = user.environment(given.iter().cloned());
        for (name, value) in &found {
            assert!(!name.is_empty() && !name.as_bytes().contains(&b'='), "{found:?}");
            assert!(!name.as_bytes().contains(&0) && !value.as_bytes().contains(&0), "{found:?}");
            assert!(!name.as_bytes().starts_with(b"SUDO_"), "{found:?}");
        }
        for name in ["USER", "LOGNAME"] {
            assert_eq!(found.iter().filter(|(key, _)| key == name).count(), 1, "{found:?}");
        }
        let path = OsStr::new("PATH");
        let is_chosen = of(&chosen, path).is_some();
        match (&user.sudo, of(given, path), of(&found, path)) {
            (_, None, _) => {}
            (Sudo::Known(_), Some(ours), theirs) => {
                let wanted = if is_chosen { Some(ours) } else { login.clone().or(Some(ours)) };
                assert_eq!(theirs, wanted);
            }
            (Sudo::None, ours, theirs) => assert_eq!(theirs, ours),
            (Sudo::Unknown { .. }, Some(ours), theirs) => {
                let theirs = theirs.unwrap_or_default();
                assert!(theirs.as_bytes().starts_with(ours.as_bytes()), "{theirs:?} of {ours:?}");
                let login = login.clone().unwrap_or_default();
                assert_eq!(login::extended(&theirs, &login), theirs, "nothing is added twice");
            }
        }
    }
}
