//! `fuzz`: runs libFuzzer on the readers of untrusted bytes.
//!
//! It uses the same compiler as everything else. cargo-fuzz needs a nightly one only for memory
//! sanitizers, which matter little here because there is little unsafe code.

use std::{env, fs};

use anyhow::{Context as _, Result};

use crate::command::{cargo, command, run, step, target_dir};

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to fuzz each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// The targets, which are also the directories of fuzz/corpus.
const TARGETS: [&str; 5] = ["replay", "records", "command", "attribution", "stacks"];

/// Makes the compiler report branches and comparisons to libFuzzer.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
     --cfg fuzzing";

/// Fuzzes each target for that time; adds inputs that reach new code to its corpus.
pub(crate) fn fuzz(Args { seconds }: &Args) -> Result<()> {
    let dir = target_dir()?.join("fuzz");
    // With an explicit target, the flags do not apply to build scripts and macros.
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
        fs::create_dir_all(&found).context("cannot create a directory for new inputs")?;
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
