//! Components of Rust that may be missing: core's sources, clippy, rustfmt.

use anyhow::{Context as _, Result, bail};

use crate::{
    apt,
    command::{command, is_installed, output, run, step},
    toolchain::is_recent_enough,
};

/// A component of rustup.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Component {
    RustSrc,
    Clippy,
    Rustfmt,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::RustSrc => "rust-src",
            Self::Clippy => "clippy",
            Self::Rustfmt => "rustfmt",
        }
    }

    /// The component's package in Debian and Ubuntu, for the Rust in their package `rustc<suffix>`.
    fn package(self, suffix: &str) -> String {
        match self {
            Self::RustSrc => format!("rust{suffix}-src"),
            Self::Clippy => format!("rust{suffix}-clippy"),
            Self::Rustfmt => format!("rustfmt{suffix}"),
        }
    }

    /// Adds the component to the active toolchain. If rustup cannot fetch core's sources, this links the
    /// distribution's toolchain as `bpf` in addition.
    pub(crate) fn install(self) -> Result<()> {
        let name = self.name();
        if !is_installed("rustup") {
            return self.install_packaged();
        }
        // Only one retry: without a network, the fallback should start soon.
        let added = run(command("rustup")
            .args(["component", "add", name])
            .env("RUSTUP_MAX_RETRIES", "1")
            .env("RUST_BACKTRACE", "0"));
        match added {
            Err(e) if self == Self::RustSrc && apt::exists() => {
                step(&format!("{e:#}; using the distribution's Rust"));
                link_packaged()
            }
            added => added,
        }
    }

    /// Adds the component to the distribution's Rust, which is in use.
    fn install_packaged(self) -> Result<()> {
        let name = self.name();
        let sysroot = output(command("rustc").args(["--print", "sysroot"]))
            .context("rustc is not installed: install Rust from https://rustup.rs")?;
        let rustc = format!("{sysroot}/bin/rustc");
        // "rustc-web: /usr/bin/rustc"
        let suffix = output(command("dpkg").args(["-S", &rustc]))
            .and_then(|line| Some(line.strip_prefix("rustc")?.split_once(':')?.0.to_owned()));
        let Some(suffix) = suffix else {
            bail!(
                "{rustc} lacks {name}: install your distribution's package of it \
                 (Fedora: `sudo dnf install {name}`), or Rust from https://rustup.rs"
            );
        };
        apt::install(&[self.package(&suffix)])
    }
}

/// Installs the distribution's Rust with core's sources, and links it into rustup.
fn link_packaged() -> Result<()> {
    let suffix = packaged().or_else(|| {
        apt::update();
        packaged()
    });
    let suffix = suffix.with_context(|| {
        format!(
            "no package has core's sources of Rust {} or newer: \
             connect this machine to a network and run `rustup component add rust-src`",
            env!("CARGO_PKG_RUST_VERSION")
        )
    })?;
    apt::install(&[
        format!("rustc{suffix}"),
        format!("cargo{suffix}"),
        Component::RustSrc.package(&suffix),
    ])?;
    let versioned = suffix.strip_prefix("-1.").map_or("", |_| &suffix);
    let rustc = format!("/usr/bin/rustc{versioned}");
    let sysroot = output(command(&rustc).args(["--print", "sysroot"]))
        .with_context(|| format!("{rustc} does not run: see `apt-cache policy rustc{suffix}`"))?;
    run(command("rustup").args(["toolchain", "link", "bpf", &sysroot]))
}

/// The suffix of a packaged Rust that is recent enough: `-web` (Debian's Rust for browsers, which is
/// recent in stable releases too), none, or Ubuntu's `-1.91`.
fn packaged() -> Option<String> {
    let names = output(command("apt-cache").args(["pkgnames", "rustc-1."])).unwrap_or_default();
    let versioned = names.lines().filter_map(|name| name.strip_prefix("rustc"));
    ["-web", ""]
        .into_iter()
        .chain(versioned)
        .find(|suffix| {
            apt::candidate(&Component::RustSrc.package(suffix))
                .is_some_and(|version| is_recent_enough(&version))
        })
        .map(str::to_owned)
}
