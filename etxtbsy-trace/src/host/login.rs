//! The PATH that a user has after a login, for where sudo cannot be asked.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::host::user::Invoker;

/// How long a login shell may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Where shadow and util-linux have the settings of login(1), and what they take without.
const SETTINGS: &str = "/etc/login.defs";
const DEFAULT: &str = "/usr/local/bin:/bin:/usr/bin";

/// The PATH that the user's login shell sets, else that which login(1) gives it.
#[must_use]
pub fn path(user: &Invoker) -> OsString {
    let given = fs::read(SETTINGS).ok().and_then(|settings| setting(&settings));
    let given = given.unwrap_or_else(|| DEFAULT.into());
    of_shell(user, &given).unwrap_or(given)
}

/// `path` with those of the directories of `more` behind it that it does not have.
#[must_use]
pub fn extended(path: &OsStr, more: &OsStr) -> OsString {
    let of = |path: &OsStr| -> Vec<Vec<u8>> {
        path.as_bytes().split(|byte| *byte == b':').map(<[u8]>::to_vec).collect()
    };
    let (mut all, more) = (of(path), of(more));
    for directory in more.into_iter().filter(|directory| directory.starts_with(b"/")) {
        if !all.contains(&directory) {
            all.push(directory);
        }
    }
    OsString::from_vec(all.join(&b':'))
}

/// The value of `ENV_PATH`, which may begin with `PATH=`.
fn setting(settings: &[u8]) -> Option<OsString> {
    settings.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.trim_ascii().strip_prefix(b"ENV_PATH")?;
        let is_whole = value.first().is_some_and(u8::is_ascii_whitespace);
        let value = value.trim_ascii();
        let value = value.strip_prefix(b"PATH=").unwrap_or(value);
        (is_whole && !value.is_empty()).then(|| OsString::from_vec(value.to_vec()))
    })
}

/// The PATH that programs of the user's login shell have, which begins with `given`. The shell runs as
/// that user, and without our terminal.
fn of_shell(user: &Invoker, given: &OsStr) -> Option<OsString> {
    let shell = user.shell.as_deref()?;
    let home = user.home.as_deref().unwrap_or(Path::new("/"));
    let mut child = Command::new(shell)
        .args(["-l", "-c", "exec env"])
        .env_clear()
        .env("PATH", given)
        .env("HOME", home)
        .env("SHELL", shell)
        .env("USER", &user.name)
        .env("LOGNAME", &user.name)
        .current_dir(home)
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let found = first_path(&mut child);
    if found.is_none() {
        // It may have left processes behind, and hang.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    }
    let _ = child.wait();
    found
}

/// The first line of its output that defines PATH, if it comes in time.
fn first_path(child: &mut Child) -> Option<OsString> {
    let output = child.stdout.take()?;
    let (found, finds) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        let path = lines.into_iter().find_map(|line| {
            line.strip_prefix(b"PATH=").map(|path| OsString::from_vec(path.to_vec()))
        });
        // Nobody waits any more if it is late.
        let _ = found.send(path);
    });
    finds.recv_timeout(LIMIT).ok().flatten().filter(|path| !path.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use test_support::skip;

    #[test]
    fn the_setting_of_login_is_read() {
        let of = |text: &str| setting(text.as_bytes());
        assert_eq!(
            of("# ENV_PATH x\nENV_PATH\tPATH=/bin:/usr/bin\n"),
            Some("/bin:/usr/bin".into())
        );
        assert_eq!(of("ENV_SUPATH PATH=/sbin\n  ENV_PATH /bin  \n"), Some("/bin".into()));
        for nothing in ["", "ENV_PATHS /bin", "ENV_PATH", "ENV_PATH PATH="] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_path_is_extended_by_what_it_has_not() {
        let of = |path: &str, more: &str| extended(path.as_ref(), more.as_ref());
        assert_eq!(
            of("/bin:/sbin", "/home/ann/bin:/bin:.::/home/ann/bin"),
            "/bin:/sbin:/home/ann/bin"
        );
        assert_eq!(of("/bin", ""), "/bin");
    }

    /// A process that the shell leaves behind with the pipe delays nothing.
    #[test]
    fn the_login_shell_is_asked() {
        if !nix::unistd::geteuid().is_root() {
            skip!("changing groups needs root");
        }
        let home = tempfile::tempdir().unwrap();
        let profile =
            "PATH=\"$HOME/bin:$PATH\"; export PATH; sleep 1000 & echo $! > pid; exec 2>&1\n";
        fs::write(home.path().join(".profile"), profile).unwrap();
        let mut user = Invoker::named(&nix::unistd::geteuid().to_string()).unwrap();
        (user.home, user.shell) = (Some(home.path().to_owned()), Some("/bin/sh".into()));
        let path = of_shell(&user, OsStr::new("/given"));
        let left: i32 =
            fs::read_to_string(home.path().join("pid")).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
        let path = path.unwrap();
        assert!(path.as_bytes().starts_with(home.path().as_os_str().as_bytes()), "{path:?}");
        user.shell = Some("/bin/false".into());
        assert_eq!(of_shell(&user, OsStr::new("/given")), None);
        user.shell = None;
        assert_eq!(of_shell(&user, OsStr::new("/given")), None);
    }
}
