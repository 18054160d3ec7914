//! A user who may use sudo without a password, and has programs of their own.

use super::{BINARY, NOBODY};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::skip;

const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) struct SudoUser {
    pub(crate) home: PathBuf,
    /// The user's own programs are before those of the system, and etxtbsy-trace is after them.
    pub(crate) path: String,
    sudoers: PathBuf,
}

impl SudoUser {
    /// `None`, after a line that says so, where sudo does not work.
    pub(crate) fn new(dir: &Path) -> Option<Self> {
        if !Path::new("/usr/bin/sudo").exists() {
            skip!("sudo is not installed");
        }
        let (home, tools, sudoers) = (dir.join("home"), dir.join("tools"), dir.join("sudoers"));
        let bin = home.join(".cargo/bin");
        for dir in [&bin, &tools] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::copy(BINARY, tools.join("etxtbsy-trace")).unwrap();
        let tools = tools.display();
        let rules = format!(
            "Defaults env_reset, secure_path=\"{tools}:{SYSTEM}\"\n#65534 ALL=(ALL) NOPASSWD: ALL\n\
             root ALL=(ALL) ALL\n"
        );
        fs::write(&sudoers, rules).unwrap();
        fs::set_permissions(&sudoers, Permissions::from_mode(0o440)).unwrap();
        let path = format!("{}:{SYSTEM}:{tools}", bin.display());
        let user = Self { home, path, sudoers };
        let may = user.shell("sudo -n true").output().unwrap();
        if !may.status.success() {
            skip!("sudo does not work here: {}", String::from_utf8_lossy(&may.stderr));
        }
        Some(user)
    }

    /// Gives the user a program, a script of the shell.
    pub(crate) fn add_program(&self, name: &str, script: &str) {
        let path = self.home.join(".cargo/bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    /// A command of the user's shell, in their home. It has a mount namespace of its own, so that the sudoers file applies
    /// to no other process.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(
            "mount --bind \"$0\" /etc/sudoers && cd \"$1\" &&
             exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                 env -i OF_THE_USER=yes HOME=\"$1\" PATH=\"$2\" sh -c \"$3\"",
        );
        command.arg(&self.sudoers).arg(&self.home).arg(&self.path).arg(script);
        command
    }
}
