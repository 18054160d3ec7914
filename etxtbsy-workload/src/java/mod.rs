//! JDK-8068370: threads of a Java program that each write a script of their own and run it by
//! ProcessBuilder. `java` compiles the program as it starts it.

use super::report::Race;
use super::stage;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SOURCE: &str = include_str!("ForkExec.java");

/// Arguments of `java`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// How many threads.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    threads: u32,
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Stop when that many execs have failed.
    #[arg(long, value_name = "N")]
    failures: Option<u64>,
    /// Where to make the directory for the scripts.
    #[arg(long, value_name = "DIR", default_value = stage::PLACE)]
    dir: PathBuf,
}

/// What the program counted: the rest of a [`Race`].
#[derive(Deserialize)]
struct Counted {
    pid: u32,
    attempts: u64,
    failures: u64,
    seconds: f64,
    threads: Vec<u32>,
}

pub(super) fn run(args: &Args) -> Result<Race> {
    // Ctrl-C ends java; this process stays to remove the directory.
    stage::catch_interrupts()?;
    let dir = stage::directory(&args.dir)?;
    let source = dir.path().join("ForkExec.java");
    std::fs::write(&source, SOURCE)?;
    let ended = Command::new("java")
        .arg(&source)
        .arg(dir.path())
        .args([args.threads.to_string(), args.seconds.to_string()])
        .arg(args.failures.unwrap_or(0).to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start java, of a JDK 11 or newer")?;
    ensure!(ended.status.success(), "the Java program failed: {}", ended.status);
    let counted: Counted = serde_json::from_slice(&ended.stdout)
        .with_context(|| format!("unexpected: {}", String::from_utf8_lossy(&ended.stdout)))?;
    Ok(Race {
        scenario: "java".into(),
        pid: counted.pid,
        dir: dir.path().into(),
        attempts: counted.attempts,
        failures: counted.failures,
        seconds: counted.seconds,
        threads: counted.threads,
    })
}
