//! What observes the machine during a measurement: nothing, this tracer, or another tool.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    block::with_tracefs,
    programs,
    tracer::{Output, Tracer},
};
use crate::command::{command, is_installed};

/// The calls that show who has a file open for writing.
const CALLS: &str = "trace=execve,execveat,open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,\
                     clone,clone3,fork,vfork";

/// A typical handwritten script: who opened what, who forked whom, which exec failed.
const SCRIPT: &str = r#"
BEGIN { printf("ready\n"); }
tracepoint:syscalls:sys_exit_openat /args->ret >= 0/ { @opened[pid, args->ret] = nsecs; }
tracepoint:syscalls:sys_enter_close { delete(@opened[pid, args->fd]); }
tracepoint:sched:sched_process_fork { @parent[args->child_pid] = pid; }
tracepoint:sched:sched_process_exit { delete(@parent[pid]); }
tracepoint:syscalls:sys_exit_execve /args->ret == -26/ { printf("%d %s\n", pid, comm); }
END { clear(@opened); clear(@parent); }
"#;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Observer {
    Nothing,
    Ours,
    /// Traces the program and its descendants.
    Strace,
    Bpftrace,
}

/// An observer of the whole machine, which ends when this is dropped.
#[derive(Default)]
pub(super) struct Watch {
    tracer: Option<Tracer>,
    script: Option<Script>,
}

/// A running bpftrace.
struct Script {
    child: Child,
}

impl Observer {
    /// The observers that are installed on this machine.
    pub(super) fn installed() -> Vec<Self> {
        let is_installed = |observer: &Self| match observer {
            Self::Nothing | Self::Ours => true,
            Self::Strace | Self::Bpftrace => is_installed(observer.name()),
        };
        [Self::Nothing, Self::Ours, Self::Strace, Self::Bpftrace]
            .into_iter()
            .filter(is_installed)
            .collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "without",
            Self::Ours => "etxtbsy-trace",
            Self::Strace => "strace",
            Self::Bpftrace => "bpftrace",
        }
    }

    /// The command, wrapped if the observer must start it. A wrapped command keeps only its arguments.
    pub(super) fn command(self, watched: Command) -> Command {
        if self != Self::Strace {
            return watched;
        }
        let mut strace = command("strace");
        strace.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", CALLS]);
        strace.arg(watched.get_program()).args(watched.get_args());
        strace
    }

    /// Starts observing, if the observer observes the whole machine.
    pub(super) fn watch(self, tracer: &Path, output: &Output) -> Result<Watch> {
        programs::wait_for_tracers(0)?;
        let mut watch = Watch::default();
        match self {
            Self::Nothing | Self::Strace => {}
            Self::Ours => watch.tracer = Some(Tracer::start(tracer, output)?),
            Self::Bpftrace => watch.script = Some(Script::start()?),
        }
        Ok(watch)
    }
}

impl Watch {
    /// Ends the observer; an error if it lost records.
    pub(super) fn end(self, output: &Output) -> Result<()> {
        let Some(tracer) = self.tracer else { return Ok(()) };
        let lost = tracer.stop(output)?;
        ensure!(lost == 0, "the tracer lost {lost} records");
        Ok(())
    }
}

impl Script {
    fn start() -> Result<Self> {
        let mut child = with_tracefs("bpftrace")
            .args(["-e", SCRIPT])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start bpftrace")?;
        let stdout = child.stdout.take().context("bpftrace has no stdout")?;
        let script = Self { child };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        ensure!(lines.any(|line| line == "ready"), "bpftrace ended before tracing was live");
        // Keeps reading, so that the pipe never blocks bpftrace.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // A failure here does not matter: the measurement is done, or an error is reported.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
        let _ = self.child.wait();
    }
}
