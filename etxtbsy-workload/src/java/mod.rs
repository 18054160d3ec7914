//! JDK-8068370: threads of a Java program each write their own script and run it with ProcessBuilder.
//! `java` compiles the program when it starts it.

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
    /// Number of threads.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    threads: u32,
    /// Duration.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Stop when that many execs have failed.
    #[arg(long, value_name = "N")]
    failures: Option<u64>,
    /// Where to create the directory for the scripts.
    #[arg(long, value_name = "DIR", default_value = stage::DEFAULT_DIR)]
    dir: PathBuf,
}

/// The program's report, with the fields of a [`Race`].
#[derive(Deserialize)]
struct JavaReport {
    pid: u32,
    attempts: u64,
    failures: u64,
    seconds: f64,
    threads: Vec<u32>,
}

pub(super) fn run(args: &Args) -> Result<Race> {
    // Ctrl-C ends java; this process continues and removes the directory.
    stage::catch_interrupts()?;
    let dir = stage::directory(&args.dir)?;
    let source = dir.path().join("ForkExec.java");
    std::fs::write(&source, SOURCE)?;
    let output = Command::new("java")
        .arg(&source)
        .arg(dir.path())
        .args([args.threads.to_string(), args.seconds.to_string()])
        .arg(args.failures.unwrap_or(0).to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start java: install a JDK (11 or newer)")?;
    ensure!(output.status.success(), "the Java program failed: {}", output.status);
    let report: JavaReport = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("the Java program printed no report: {}", String::from_utf8_lossy(&output.stdout))
    })?;
    Ok(Race {
        scenario: "java".into(),
        pid: report.pid,
        dir: dir.path().into(),
        attempts: report.attempts,
        failures: report.failures,
        seconds: report.seconds,
        threads: report.threads,
    })
}
