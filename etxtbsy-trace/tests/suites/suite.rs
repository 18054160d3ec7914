//! A test suite: each test writes a tool, and runs it a moment later. With `fixed`, a lock keeps other tests from spawning
//! while a tool is open for writing.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::Duration;

const WORKERS: u64 = 6;
const TESTS: u64 = 40;
// The shell reads no further than `exit`.
const TOOL: &str = "#!/bin/sh\nsleep 0.003\nexit\n";

static LOCK: Mutex<()> = Mutex::new(());

fn write_tool(path: &Path) {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).mode(0o755).open(path).unwrap();
    file.write_all(&[TOOL.as_bytes(), &[b'#'; 500_000]].concat()).unwrap();
}

/// Whether the tool could be run.
fn test(path: &Path, is_fixed: bool, random: u64) -> bool {
    {
        let _lock = is_fixed.then(|| LOCK.lock());
        write_tool(path);
    }
    sleep(Duration::from_micros(1000 + random % 3000));
    let child = {
        let _lock = is_fixed.then(|| LOCK.lock());
        Command::new(path).spawn()
    };
    let result = child.and_then(|mut child| child.wait());
    let _ = fs::remove_file(path);
    match result {
        Ok(status) => status.success(),
        Err(error) => {
            println!("{}: {error}", path.display());
            false
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let directory = PathBuf::from(args.next().unwrap());
    let is_fixed = args.next().is_some_and(|word| word == "fixed");
    let work = |worker: u64| {
        let mut random = u64::from(std::process::id()) + worker;
        (0..TESTS)
            .filter(|number| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let path = directory.join(format!("tool-{worker}-{number}"));
                !test(&path, is_fixed, random >> 33)
            })
            .count()
    };
    let failed: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    ExitCode::from(u8::from(failed > 0))
}
