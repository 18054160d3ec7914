//! The measurements that are made in each condition, in turn.

use std::{env, path::Path, process::Command, thread};

use anyhow::{Result, bail};

use super::{Args, operation::Operation, programs, race::Race, worker::measured_by};
use crate::command::{command, is_installed};

/// Counts calls of `truncate` on all CPUs while the command that follows runs.
const PERF: [&str; 7] = ["stat", "-a", "-o", "/dev/null", "-e", TRUNCATE, "--"];
const TRUNCATE: &str = "syscalls:sys_enter_truncate,syscalls:sys_exit_truncate";

/// Mounts tracefs if needed, then runs the command that follows.
const WITH_TRACEFS: &str = "test -e /sys/kernel/tracing/events || \
                            mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";

/// How often a block is measured again because another tracer ran meanwhile.
const TRIES: u32 = 10;

/// The measurements of one block, which are the same in all conditions.
pub(super) struct Block {
    /// Nanoseconds per call, in the order of the operations.
    pub(super) operations: Vec<f64>,
    /// How long a file is open for writing, in nanoseconds.
    pub(super) window: Option<f64>,
    pub(super) race: Option<Race>,
}

impl Block {
    /// Measures a block while exactly that many tracers run on this machine. Waits for this, because the
    /// programs of a tracer that has ended still run for some time.
    pub(super) fn undisturbed(
        args: &Args,
        tracer: &Path,
        tracers: usize,
        mirrored: bool,
    ) -> Result<Self> {
        for _ in 0..TRIES {
            programs::wait_for_tracers(tracers)?;
            let block = Self::measure(args, tracer, mirrored)?;
            if programs::tracers()? == tracers {
                return Ok(block);
            }
        }
        bail!("another etxtbsy-trace starts again and again: stop what starts it")
    }

    /// Measures a block, in the opposite order if `mirrored`.
    fn measure(args: &Args, tracer: &Path, mirrored: bool) -> Result<Self> {
        let mut block = Self { operations: Vec::new(), window: None, race: None };
        if !mirrored {
            block.measure_races(args, tracer)?;
        }
        let mut operations = Operation::paired();
        if mirrored {
            operations.reverse();
        }
        for operation in operations {
            block.operations.push(measure(args, operation)?);
        }
        if mirrored {
            block.operations.reverse();
            block.measure_races(args, tracer)?;
        }
        Ok(block)
    }

    fn measure_races(&mut self, args: &Args, tracer: &Path) -> Result<()> {
        self.race = Race::run(command(tracer), args.race, &args.dir)?;
        if thread::available_parallelism()?.get() > 1 {
            self.window = Some(measure(args, Operation::WINDOW)?);
        }
        Ok(())
    }
}

/// Nanoseconds of an operation.
fn measure(args: &Args, operation: Operation) -> Result<f64> {
    Ok(measured_by(args, command(env::current_exe()?), operation)?.nanoseconds)
}

/// A call that is not traced, while perf (if installed) counts another call: the kernel's own cost as
/// soon as any system call tracepoint is in use.
pub(super) fn floor(args: &Args) -> Result<Option<f64>> {
    if !is_installed("perf") {
        return Ok(None);
    }
    let mut perf = with_tracefs("perf");
    perf.args(PERF).arg(env::current_exe()?);
    Ok(Some(measured_by(args, perf, Operation::NULL_CALL)?.nanoseconds))
}

/// A command for a program that needs tracefs, which is mounted only for it if needed.
pub(super) fn with_tracefs(program: &str) -> Command {
    let mut unshare = command("unshare");
    unshare.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh", program]);
    unshare
}
