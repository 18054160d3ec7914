//! Starts other programs: prints each command, runs it as root if needed, and checks its status.

use std::{
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, bail};

use crate::toolchain;

/// Prints a step and its reason.
pub(crate) fn step(text: &str) {
    eprintln!("==> {text}");
}

/// A command that runs in the workspace's root and finds programs of `cargo install`.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("PATH", toolchain::path_with_cargo_bin());
    command
}

/// The cargo that runs this program, with arguments.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args);
    cargo
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs as root, with sudo unless [`is_root`].
pub(crate) fn root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return command(program);
    }
    let mut sudo = command("sudo");
    sudo.arg(program);
    sudo
}

/// Runs the command on this terminal; an error names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("    {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`{line}` failed: {status}"),
        Err(e) if e.kind() == io::ErrorKind::NotFound && command.get_program() == "sudo" => {
            let wanted = line.strip_prefix("sudo ").unwrap_or(&line);
            bail!("this needs root, and sudo is not installed: run `su -c '{wanted}'`")
        }
        Err(e) => Err(e).with_context(|| format!("cannot start `{line}`")),
    }
}

/// The command's stdout; `None` if it is not installed or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let Output { status, stdout, .. } = command.output().ok()?;
    let stdout = String::from_utf8_lossy(&stdout).trim_end().to_owned();
    status.success().then_some(stdout)
}

/// Whether the program is installed.
pub(crate) fn is_installed(program: impl AsRef<OsStr>) -> bool {
    output(command(program).arg("--version")).is_some()
}

/// Cargo's target directory, in which this program is `debug/xtask`.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find cargo's target directory")?;
    let dir = own.ancestors().nth(2).context("not started by `cargo xtask`: run it that way")?;
    Ok(dir.to_owned())
}

/// The path of that program after `cargo build --release`.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    Ok(target_dir()?.join("release").join(name))
}

/// The command as a user would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name();
    let words = name.into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
