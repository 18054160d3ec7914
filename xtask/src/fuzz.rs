//! `fuzz`: libFuzzer on what reads bytes that others wrote.
//!
//! With the compiler that builds everything else: what cargo-fuzz takes a nightly one for are the
//! sanitizers of memory, which the few lines of unsafe code here do without.

use std::{env, fs};

use anyhow::{Context as _, Result};

use crate::command::{cargo, command, run, step, target_dir};

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to look, for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// The targets, and directories of fuzz/corpus.
const TARGETS: [&str; 4] = ["replay", "records", "command", "attribution"];

/// Has the compiler tell libFuzzer which branches are taken, and what is compared.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
     --cfg fuzzing";

/// Fuzzes each target for the time given; what reaches new code is added to its corpus.
pub(crate) fn fuzz(Args { seconds }: &Args) -> Result<()> {
    let dir = target_dir()?.join("fuzz");
    // With it named, build scripts and macros are built as ever.
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let flags = host.to_uppercase().replace('-', "_");
    step("building the fuzz targets");
    run(cargo(["build", "--release", "--locked", "--package", "etxtbsy-trace-fuzz"])
        .args(["--features", "libfuzzer", "--target", &host, "--target-dir"])
        .arg(&dir)
        .env(format!("CARGO_TARGET_{flags}_RUSTFLAGS"), COVERAGE)
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"))?;
    for target in TARGETS {
        step(&format!("fuzzing {target} for {seconds} s"));
        let found = dir.join("found").join(target);
        fs::create_dir_all(&found).context("cannot make a directory for what is found")?;
        let fuzzer = || command(dir.join(&host).join("release").join(format!("fuzz-{target}")));
        let corpus = format!("fuzz/corpus/{target}");
        run(fuzzer()
            .arg(&found)
            .args([&corpus, "-max_len=8192", "-timeout=10", "-print_final_stats=1"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", dir.display())))?;
        run(fuzzer().args(["-set_cover_merge=1", &corpus]).arg(&found))?;
    }
    Ok(())
}
