//! All checks of the workspace.

use std::{env, ffi::OsString};

use anyhow::{Context as _, Result};

use crate::{
    command::{self, cargo, command, output, step, target_dir},
    component::Component,
    skipped::Skipped,
    tmux,
    toolchain::{Toolchain, path_with_cargo_bin},
    vm,
};

/// The oldest supported kernel, and the tests that always run on it: each way to hold and drop a file,
/// once. `cargo xtask vm` runs all tests on all kernels.
const OLDER_KERNEL: &str = "5.10";
const OLDER_TESTS: &[&str] = &[
    "check::every_fact_is_reported",
    "scenes::between_fork_and_exec",
    "scenes::busy_interpreters",
    "scenes::dup",
    "scenes::fork_in_progress",
    "scenes::in_flight_fd",
    "scenes::open_running",
    "scenes::passed_fd",
    "scenes::released_by",
    "scenes::shared_mapping",
    "scenes::shared_table",
    "scenes::still_open",
    "scenes::unshared_table",
];

/// Makes a differing or missing snapshot fail its test, without updating it.
const SNAPSHOTS: (&str, &str) = ("INSTA_UPDATE", "no");

/// Runs all checks, or only `cargo test` with the given arguments. Prints at the end which tests were
/// skipped.
pub(crate) fn run(toolchain: &Toolchain, args: &[OsString]) -> Result<()> {
    let mut skipped = Skipped::default();
    let result = if args.is_empty() {
        all(toolchain, &mut skipped)
    } else {
        on_live_kernel(args, &mut skipped)
    };
    skipped.print();
    result
}

fn all(toolchain: &Toolchain, skipped: &mut Skipped) -> Result<()> {
    style()?;
    lints(toolchain)?;
    if is_installed("typos") {
        step("spelling");
        command::run(&mut command("typos"))?;
    }
    if is_installed("cargo-deny") {
        step("licences and known vulnerabilities of the dependencies");
        command::run(&mut cargo(["deny", "--locked", "check"]))?;
    }
    step("unit tests");
    let user = if command::is_root() { "unit tests, as root" } else { "unit tests, as this user" };
    let mut unit_tests = cargo(["test", "--release", "--locked", "--lib", "--bins"]);
    skipped.run(user, unit_tests.env(SNAPSHOTS.0, SNAPSHOTS.1))?;
    let mut args = vec!["--package=etxtbsy-trace", "--test=*"];
    if !command::is_root() {
        // Some of the unit tests need root.
        args.push("--lib");
    }
    on_live_kernel(&args.into_iter().map(Into::into).collect::<Vec<_>>(), skipped)?;
    if is_installed("apt-get") {
        step("some of the live tests on an older kernel, in a virtual machine");
        vm::run(&vm::Args::some(OLDER_KERNEL, OLDER_TESTS))?;
    }
    Ok(())
}

fn style() -> Result<()> {
    step("format");
    ensure("fmt", Component::Rustfmt)?;
    command::run(&mut cargo(["fmt", "--all", "--check"]))
}

fn lints(toolchain: &Toolchain) -> Result<()> {
    step("lints");
    ensure("clippy", Component::Clippy)?;
    // In release mode as for the tests, so that the eBPF programs are built only once.
    command::run(&mut cargo([
        "clippy",
        "--release",
        "--locked",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))?;

    step("lints of the eBPF programs, with the toolchain that builds them");
    command::run(
        command(toolchain.sysroot.join("bin/cargo"))
            .args(["check", "--locked", "--package=etxtbsy-trace-ebpf", "--release"])
            .args(["-Zbuild-std=core", "--target=bpfel-unknown-none", "--target-dir"])
            .arg(target_dir()?.join("ebpf"))
            .env("RUSTC", toolchain.sysroot.join("bin/rustc"))
            .env("RUSTC_BOOTSTRAP", "1")
            .env(
                "RUSTFLAGS",
                format!("-Dwarnings --cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            ),
    )
}

/// Runs `cargo test` as this user, but the tests as root, so that no file in the target directory belongs
/// to root.
fn on_live_kernel(args: &[OsString], skipped: &mut Skipped) -> Result<()> {
    tmux::ensure()?;
    step("live tests, as root: loading eBPF programs needs root");
    let mut test = cargo(["test", "--release", "--locked"]);
    if !command::is_root() {
        // Removes sudo's variables, because the tool acts on them, and keeps PATH, which sudo replaces.
        let path = path_with_cargo_bin();
        let path = path.to_str().context("PATH is not UTF-8")?;
        let (variable, file) = Skipped::variable()?;
        test.arg("--config").arg(format!(
            "target.'cfg(all())'.runner = ['sudo', '-E', 'env', '-uSUDO_USER', '-uSUDO_UID', \
             '-uSUDO_GID', '-uSUDO_COMMAND', '{}={}', '{variable}={}', 'PATH={path}']",
            SNAPSHOTS.0,
            SNAPSHOTS.1,
            file.display()
        ));
    }
    test.args(args).env(SNAPSHOTS.0, SNAPSHOTS.1);
    skipped.run("live tests, as root", &mut test)
}

/// Installs a missing cargo subcommand.
fn ensure(subcommand: &str, component: Component) -> Result<()> {
    if output(&mut cargo([subcommand, "--version"])).is_none() {
        component.install()?;
    }
    Ok(())
}

/// Whether the program is installed; prints that its check is skipped if not.
fn is_installed(program: &str) -> bool {
    let installed = command::is_installed(program);
    if !installed {
        step(&format!("{program} is not installed: skipped"));
    }
    installed
}
