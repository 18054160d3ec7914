//! A tracer of the whole machine, and its cost.

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

/// How often to check whether a tracer that is not ready still runs.
const POLL: Duration = Duration::from_millis(100);
/// How long reading the last line may take, which is in the pipe when the tracer has ended.
const LAST_LINE: Duration = Duration::from_secs(10);

/// Receives the lines of all tracers. One thread reads them all, so that this process has the same number
/// of threads with and without a tracer.
pub(super) struct Output {
    pipe: PipeWriter,
    messages: Receiver<Message>,
}

/// A line that matters.
enum Message {
    /// The first line: tracing is live since this moment.
    Ready(Instant),
    /// The last line: the number of lost records.
    Ended(u64),
}

impl Output {
    pub(super) fn new() -> Result<Self> {
        let (reader, pipe) = io::pipe()?;
        let (send, messages) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                let message = match line["type"].as_str() {
                    Some("meta") => Message::Ready(Instant::now()),
                    Some("summary") => Message::Ended(line["lost"].as_u64().unwrap_or(0)),
                    _ => continue,
                };
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Self { pipe, messages })
    }
}

/// A tracer of the whole machine, interrupted when dropped.
pub(super) struct Tracer {
    child: Child,
    pub(super) ready_after: Duration,
}

impl Tracer {
    /// Starts a tracer and waits until it is ready.
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
            match output.messages.recv_timeout(POLL) {
                Ok(Message::Ready(ready)) => {
                    tracer.ready_after = ready - began;
                    return Ok(tracer);
                }
                Ok(Message::Ended(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the tracers' output ended"),
            }
            if let Some(status) = tracer.child.try_wait()? {
                bail!("{} ended before tracing was live: {status}", program.display());
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the tracer; returns the number of lost records.
    pub(super) fn stop(mut self, output: &Output) -> Result<u64> {
        let status = self.interrupt()?;
        ensure!(status.success(), "the tracer failed: {status}");
        match output.messages.recv_timeout(LAST_LINE) {
            Ok(Message::Ended(lost)) => Ok(lost),
            _ => bail!("the tracer ended without a summary"),
        }
    }

    fn interrupt(&mut self) -> Result<std::process::ExitStatus> {
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(self.pid() as i32), Signal::SIGINT)?;
        }
        Ok(self.child.wait()?)
    }

    /// The CPU time of all its threads so far, in the kernel and in user space.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let ticks = || {
            // The name before `) ` may contain anything. utime and stime, see proc_pid_stat(5).
            let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
            let mut ticks = || fields.next()?.parse::<u64>().ok();
            Some(ticks()? + ticks()?)
        };
        let ticks = ticks().with_context(|| format!("/proc/PID/stat: {stat}"))?;
        let hz = sysconf(SysconfVar::CLK_TCK)?.context("sysconf has no CLK_TCK")?;
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
        // This happens only after an error, which is reported.
        let _ = self.interrupt();
    }
}
