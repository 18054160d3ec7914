//! A tracer of the whole machine, and what it takes.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, PipeWriter},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use serde_json::Value;

/// How often it is looked at whether a tracer that is not ready yet still runs.
const LOOK: Duration = Duration::from_millis(100);
/// How long its last line may take, which stands in the pipe when it has ended.
const LAST_LINE: Duration = Duration::from_secs(10);

/// Where the tracers' lines go. One thread reads them all, so that this process has as many
/// threads while it measures without a tracer as it has with one.
pub(super) struct Output {
    pipe: PipeWriter,
    said: Receiver<Said>,
}

/// What matters of the lines.
enum Said {
    /// The first line: it traces, since this moment.
    Ready(Instant),
    /// The last line: how much it lost.
    Ended(u64),
}

impl Output {
    pub(super) fn new() -> Result<Self> {
        let (reader, pipe) = io::pipe()?;
        let (send, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                let said = match line["type"].as_str() {
                    Some("meta") => Said::Ready(Instant::now()),
                    Some("summary") => Said::Ended(line["lost"].as_u64().unwrap_or(0)),
                    _ => continue,
                };
                if send.send(said).is_err() {
                    return;
                }
            }
        });
        Ok(Self { pipe, said })
    }
}

/// A tracer that sees every failure on the machine; interrupted when this is dropped.
pub(super) struct Tracer {
    child: Child,
    pub(super) ready_after: Duration,
}

impl Tracer {
    /// Starts one and waits until it is ready.
    pub(super) fn start(program: &Path, output: &Output) -> Result<Self> {
        let began = Instant::now();
        let child = Command::new(program)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(output.pipe.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut tracer = Self { child, ready_after: Duration::ZERO };
        loop {
            match output.said.recv_timeout(LOOK) {
                Ok(Said::Ready(ready)) => {
                    tracer.ready_after = ready - began;
                    return Ok(tracer);
                }
                Ok(Said::Ended(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the tracers' output ended"),
            }
            if let Some(status) = tracer.child.try_wait()? {
                bail!("{} ended before it traced: {status}", program.display());
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, and with it its programs; returns how much it lost.
    pub(super) fn stop(mut self, output: &Output) -> Result<u64> {
        let status = self.interrupt()?;
        ensure!(status.success(), "the tracer failed: {status}");
        match output.said.recv_timeout(LAST_LINE) {
            Ok(Said::Ended(lost)) => Ok(lost),
            _ => bail!("the tracer ended without a summary"),
        }
    }

    fn interrupt(&mut self) -> Result<std::process::ExitStatus> {
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(self.pid() as i32), Signal::SIGINT)?;
        }
        Ok(self.child.wait()?)
    }

    /// The CPU time of all its threads so far, in the kernel and out of it.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let ticks = || {
            // The name before it may have anything in it. utime and stime: proc_pid_stat(5).
            let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
            let mut ticks = || fields.next()?.parse::<u64>().ok();
            Some(ticks()? + ticks()?)
        };
        let ticks = ticks().with_context(|| format!("/proc/PID/stat: {stat}"))?;
        let hz = sysconf(SysconfVar::CLK_TCK)?.context("there is no CLK_TCK")?;
        Ok(Duration::from_millis(ticks * 1000 / hz as u64))
    }

    /// `VmRSS`, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("/proc/PID/status: {status}"))? * 1024)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // After an error; the first one is told.
        let _ = self.interrupt();
    }
}
