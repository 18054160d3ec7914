//! What watches while something is measured: this tracer, or what people use in its stead.

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
    programs,
    tracer::{Output, Tracer},
    with_tracefs,
};
use crate::command::{command, is_installed};

/// The calls that it takes to tell who has a file open for writing.
const CALLS: &str = "trace=execve,execveat,open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,\
                     clone,clone3,fork,vfork";

/// A script as one writes it by hand: who opened what, who forked whom, which exec failed.
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
    /// Of the program and all that it starts.
    Strace,
    Bpftrace,
}

/// What watches the whole machine, until this is dropped.
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
    /// Those that this machine has.
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

    /// A command, started by what watches it if that must start it; its arguments alone are kept.
    pub(super) fn command(self, watched: Command) -> Command {
        if self != Self::Strace {
            return watched;
        }
        let mut strace = command("strace");
        strace.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", CALLS]);
        strace.arg(watched.get_program()).args(watched.get_args());
        strace
    }

    /// Begins to watch, if it watches the whole machine.
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
    /// Ends it; an error if it has not seen all.
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
        let said = child.stdout.take().context("bpftrace has no stdout")?;
        let script = Self { child };
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        ensure!(lines.any(|line| line == "ready"), "bpftrace ended before it traced");
        // Its few lines fit into the pipe, and end with it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // After an error; the first one is told.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
        let _ = self.child.wait();
    }
}
