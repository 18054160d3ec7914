//! The process that repeats one operation, and what starts it.
//!
//! The worker has neither the threads of the benchmark nor its stdout, which may be a file that is open for
//! writing. It writes [`READY`] when its files and processes exist, and its result when the calls are made;
//! after each it waits for a line. So the benchmark can read statistics of the calls alone.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Args,
    operation::{Measured, Operation, READY},
};

/// Repeats one operation in this process, for the [`Worker`] of another.
pub(crate) fn repeat(args: &Args, operation: Operation) -> Result<()> {
    let slice = Duration::from_millis(args.slice);
    operation.measure(slice, &args.dir, &say)
}

/// Writes a line, and waits for one. Without the process that started it, the worker reads the end of its input,
/// goes on and ends.
fn say(line: &str) -> Result<()> {
    println!("{line}");
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A worker that is ready to measure.
pub(super) struct Worker {
    operation: Operation,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker by `command`, which is this program or starts it with the added arguments.
    pub(super) fn start(args: &Args, mut command: Command, operation: Operation) -> Result<Self> {
        command.args(["bench", "--slice", &args.slice.to_string(), "--dir"]);
        command.arg(&args.dir).args(["--operation", operation.word]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{operation}: cannot start"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{operation}: no pipes");
        };
        let mut worker = Self { operation, child, stdin, stdout: BufReader::new(stdout) };
        let line = worker.line()?;
        if line != READY {
            return worker.failed(&line);
        }
        Ok(worker)
    }

    /// Makes it repeat the operation.
    pub(super) fn measure(mut self) -> Result<(Done, Measured)> {
        self.stdin.write_all(b"\n")?;
        let line = self.line()?;
        match Measured::of(&line) {
            Some(measured) => Ok((Done(self), measured)),
            None => self.failed(&line),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// The error of a worker that has written something else than expected.
    fn failed<T>(self, line: &str) -> Result<T> {
        let operation = self.operation;
        self.end()?;
        bail!("{operation}: cannot parse the measurement: {line:?}")
    }

    fn end(self) -> Result<()> {
        let Self { operation, child, stdin, stdout } = self;
        drop(stdin);
        // With `stdout` closed, a worker that still writes would fail.
        let ended = child.wait_with_output()?;
        drop(stdout);
        let stderr = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{operation}: {}", stderr.trim_end());
        Ok(())
    }
}

/// A worker that has measured. It still has its files and processes.
pub(super) struct Done(Worker);

impl Done {
    pub(super) fn end(self) -> Result<()> {
        self.0.end()
    }
}

/// Measures one operation in a worker.
pub(super) fn measured_by(args: &Args, command: Command, operation: Operation) -> Result<Measured> {
    let (done, measured) = Worker::start(args, command, operation)?.measure()?;
    done.end()?;
    Ok(measured)
}
