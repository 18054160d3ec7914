//! rust-lang/rust#114554: one thread spawns /bin/true repeatedly, another writes a script, sets its
//! mode, closes it and runs it. Both use only std.

use super::race::RaceLimits;
use super::report::{Race, Task};
use super::stage::{self, SCRIPT};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Arguments of `rust114554`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(flatten)]
    limits: RaceLimits,
    /// Where to create the directory for the script.
    #[arg(long, value_name = "DIR", default_value = stage::DEFAULT_DIR)]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Race> {
    stage::catch_interrupts()?;
    let dir = stage::directory(&args.dir)?;
    let path = dir.path().join("fork-exec-0");
    let stop = AtomicBool::new(false);
    let limit = args.limits.failures.unwrap_or(u64::MAX);
    let (mut attempts, mut failures) = (0, 0);
    let start = Instant::now();
    let spawner = thread::scope(|scope| {
        let spawner = thread::Builder::new().name("bin-true".into()).spawn_scoped(scope, || {
            while !stop.load(Ordering::Relaxed) {
                let status = Command::new("/bin/true").status().context("/bin/true")?;
                ensure!(status.success(), "/bin/true: {status}");
            }
            Ok(Task::current().tid)
        })?;
        let outcome = (|| {
            let end = start + Duration::from_secs(args.limits.seconds);
            let should_continue = || !spawner.is_finished() && !stage::interrupted();
            while Instant::now() < end && failures < limit && should_continue() {
                attempts += 1;
                failures += u64::from(write_and_run(&path, &args.limits)?);
            }
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let spawner = spawner.join().map_err(|_| anyhow!("the thread panicked"))?;
        outcome.and(spawner)
    })?;
    Ok(Race {
        scenario: "rust114554".into(),
        pid: Task::current().pid,
        dir: dir.path().into(),
        attempts,
        failures,
        seconds: start.elapsed().as_secs_f64(),
        threads: vec![Task::current().tid, spawner],
    })
}

/// Writes and runs the script; returns whether the exec failed with ETXTBSY.
fn write_and_run(path: &Path, limits: &RaceLimits) -> Result<bool> {
    let mut file = File::create(path)?;
    file.write_all(SCRIPT)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
    limits.pause_while_open();
    drop(file);
    match Command::new(path).stdin(Stdio::null()).status() {
        Ok(status) => {
            ensure!(status.success(), "{}: {status}", path.display());
            Ok(false)
        }
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Ok(true),
        Err(error) => bail!("the exec of {} failed: {error}", path.display()),
    }
}
