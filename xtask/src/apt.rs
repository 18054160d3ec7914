//! Debian's and Ubuntu's packages.

use anyhow::Result;

use crate::command::{command, is_installed, output, root, run};

/// True where packages are installed with apt.
pub(crate) fn exists() -> bool {
    is_installed("apt-get")
}

/// The version that would be installed, without its epoch; none if the package is not known.
pub(crate) fn candidate(package: &str) -> Option<String> {
    let policy = output(command("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
    let (_, after) = policy.split_once("Candidate: ")?;
    let version = after.lines().next().filter(|it| *it != "(none)")?;
    Some(version.split_once(':').map_or(version, |(_epoch, rest)| rest).to_owned())
}

/// Fetches the lists of packages. Not an error if a list cannot be had: others may do.
pub(crate) fn update() {
    if let Err(e) = run(root("apt-get").arg("update")) {
        eprintln!("    {e:#}; going on");
    }
}

/// Installs the packages, never at the cost of others.
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
