//! Debian's and Ubuntu's packages.

use anyhow::Result;

use crate::command::{command, is_installed, output, root, run};

/// Whether this machine installs packages with apt.
pub(crate) fn exists() -> bool {
    is_installed("apt-get")
}

/// The version that apt would install, without its epoch; `None` if apt does not know the package.
pub(crate) fn candidate(package: &str) -> Option<String> {
    let policy = output(command("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
    let (_, after) = policy.split_once("Candidate: ")?;
    let version = after.lines().next().filter(|it| *it != "(none)")?;
    Some(version.split_once(':').map_or(version, |(_epoch, rest)| rest).to_owned())
}

/// Fetches the package lists. A failure is no error, because the other lists may suffice.
pub(crate) fn update() {
    if let Err(e) = run(root("apt-get").arg("update")) {
        eprintln!("    {e:#}; continuing");
    }
}

/// Installs the packages without removing others.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    let install = || {
        run(root("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"])
            .args(["--no-install-recommends", "--no-remove"])
            .args(packages))
    };
    install().or_else(|_| {
        update();
        install()
    })
}
