//! The tracepoints, and tracing itself.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{errno::Errno, unistd::geteuid};
use tokio::sync::Notify;

use super::{Fact, Finding, Machine, privileges::rights};
use crate::{
    event::{Filter, Incident, Line, VerdictKind},
    output::Output,
    session::{Limits, Sink, trace_run::TraceRun},
    text,
    tracer::{
        calibrate,
        features::{self, RingCompletion},
        loader::{Options, Tracer},
        programs::{Tracepoint, TracepointKind, tracepoints},
        tracefs::{self, Unreachable},
    },
};

/// How long the self-made failure may take until it is told.
const PATIENCE: Duration = Duration::from_secs(20);

const NO_TRACEFS: &str = "boot a kernel built with CONFIG_FTRACE_SYSCALLS=y";

pub(super) fn facts() -> Vec<Fact> {
    let mut programs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Tracepoint { name, program, .. } in tracepoints() {
        programs.entry(name).or_default().push(program);
    }
    let tracefs = "for the numbers of the system calls' tracepoints";
    let mut facts = vec![Fact::new("tracefs", tracefs, self::tracefs)];
    facts.extend(tracepoints().filter_map(|tracepoint| {
        let purpose =
            format!("for the program {}", programs.remove(tracepoint.name)?.join(" and "));
        Some(Fact::new(tracepoint.name, purpose, move |machine| look(tracepoint, machine)))
    }));
    facts.push(Fact::new("self-trace", "to see all of it work", self_trace).last());
    facts
}

fn tracefs(machine: &Machine) -> Finding {
    match machine.syscalls() {
        Err(unreachable) => Finding::missing(unreachable.to_string(), reach(unreachable)),
        Ok(Err(error)) => Finding::missing(format!("{error:#}"), NO_TRACEFS),
        Ok(Ok(_)) => Finding::ok(tracefs::mounted().map_or_else(
            || "not mounted; this process mounts it for itself".to_owned(),
            |at| format!("mounted at {at}"),
        )),
    }
}

/// What makes tracefs reachable.
fn reach(unreachable: &Unreachable) -> String {
    match unreachable {
        Unreachable::Unmounted(Errno::ENODEV | Errno::ENOENT) => NO_TRACEFS.to_owned(),
        Unreachable::Closed(_) => rights(),
        Unreachable::Unmounted(_) => {
            let sudo = if geteuid().is_root() { "" } else { "sudo " };
            format!("{sudo}mount -t tracefs nodev {}", tracefs::MOUNTS[0])
        }
    }
}

/// Whether a tracepoint is there.
fn look(Tracepoint { name, kind, .. }: Tracepoint, machine: &Machine) -> Finding {
    match kind {
        TracepointKind::Syscall { optional } => match machine.syscalls() {
            Ok(Ok(names)) if names.contains(name) => Finding::ok("there"),
            Ok(Ok(_)) if optional => Finding::ok("this kernel has no such call"),
            Ok(Ok(_)) => Finding::missing("this kernel does not have it", NO_TRACEFS),
            _ => Finding::unknown("tracefs cannot be read"),
        },
        TracepointKind::Raw | TracepointKind::Ring => match machine.btf() {
            Err(_) => Finding::unknown("the kernel's BTF cannot be read"),
            Ok(btf) if kind == TracepointKind::Ring => {
                ring(features::ring_completion(btf) != RingCompletion::Unknown)
            }
            Ok(btf) if btf.has_tracepoint(name) => Finding::ok("there"),
            Ok(_) => Finding::missing(
                "this kernel does not have it",
                "boot a kernel built with CONFIG_TRACEPOINTS=y",
            ),
        },
    }
}

fn ring(is_known: bool) -> Finding {
    if is_known {
        return Finding::ok("there");
    }
    Finding::degraded(
        "not there, or it does not tell of which request (before 6.0)",
        "who opened a file by io_uring is not told; its holders are",
    )
}

/// Makes a failure under the tracer, and looks at what is told of it.
fn self_trace(machine: &Machine) -> Finding {
    if !machine.whole.get() {
        return Finding::unknown("not tried: something else is missing");
    }
    let began = Instant::now();
    let remedy = "report it with what the same command says with -vv";
    match traced_failure() {
        Err(error) => {
            let remedy = if is_refused(&error) { refused(&error) } else { remedy.to_owned() };
            Finding::missing(format!("{error:#}"), remedy)
        }
        Ok(incident) => {
            let Incident { file, verdict, explained, complete, holders, .. } = &incident;
            let own = Some(std::process::id());
            let own = holders.first().is_some_and(|holder| holder.local_pid == own);
            let told = format!(
                "{}: {explained} of {} writers explained",
                text::name(verdict.kind),
                file.writers.unwrap_or(0),
            );
            if *complete && own && verdict.kind == VerdictKind::StillOpen {
                let took = began.elapsed().as_millis();
                Finding::ok(format!("a failure was made and explained in {took} ms, {told}"))
            } else {
                Finding::missing(format!("a failure was made and not explained, {told}"), remedy)
            }
        }
    }
}

/// Whether something was refused for lack of a right.
fn is_refused(error: &anyhow::Error) -> bool {
    let errno = |cause: &(dyn std::error::Error + 'static)| {
        let errno = cause.downcast_ref::<Errno>().map(|errno| *errno as i32);
        errno.or_else(|| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error))
    };
    error.chain().filter_map(errno).any(|errno| [libc::EPERM, libc::EACCES].contains(&errno))
}

/// What to do where something was refused.
fn refused(error: &anyhow::Error) -> String {
    if error.chain().any(|cause| cause.to_string() == calibrate::NO_MEMFD) {
        "sysctl vm.memfd_noexec=0".to_owned()
    } else if geteuid().is_root() {
        "allow it: seccomp or a security module refuses it to root (docker run --privileged)"
            .to_owned()
    } else {
        rights()
    }
}

/// What is told of an exec that fails because this process has its file open.
fn traced_failure() -> Result<Incident> {
    let pid = std::process::id();
    let tracer = Tracer::start(&Options { roots: Some(vec![pid]), ..Options::default() })?;
    let (live, lives) = mpsc::channel();
    let told = Told { live, incident: Arc::default() };
    let incident = Arc::clone(&told.incident);
    let job = TraceRun {
        tracer,
        filter: Filter { pids: vec![pid], ..Filter::default() },
        sinks: vec![Sink::direct("the check", told)],
        prepared: None,
        limits: Limits { duration: Some(PATIENCE), incidents: Some(1) },
        ends_command: false,
    };
    let failure = thread::spawn(move || lives.recv().map(|()| calibrate::busy_exec()));
    job.run(&Notify::new(), |_| {})?;
    let failed = failure.join().ok().and_then(Result::ok).context("no failure was made")??;
    ensure!(failed, calibrate::ALLOWED);
    let told = incident.lock().unwrap_or_else(PoisonError::into_inner).take();
    told.context("a failure was made and not seen")
}

/// Notes what is told.
struct Told {
    /// Is told that tracing is live.
    live: mpsc::Sender<()>,
    incident: Arc<Mutex<Option<Incident>>>,
}

impl Output for Told {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            // Nobody waits for a second one.
            Line::Meta(_) => self.live.send(()).unwrap_or_default(),
            Line::Incident(incident) => {
                let mut told = self.incident.lock().unwrap_or_else(PoisonError::into_inner);
                *told = Some(Incident::clone(incident));
            }
            Line::Refusal(_) | Line::Lost(_) | Line::Summary(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_lack_of_privilege_is_nothing_to_report() {
        for errno in [Errno::EPERM, Errno::EACCES] {
            let error = anyhow::Error::from(errno).context("cannot open the tracepoint x");
            assert!(is_refused(&error));
            assert!(!refused(&error).contains("report"), "{}", refused(&error));
            let error = anyhow::Error::from(io::Error::from(errno)).context("cannot load");
            assert!(is_refused(&error));
        }
        let error = anyhow::Error::from(Errno::EACCES).context(calibrate::NO_MEMFD).context("made");
        assert_eq!(refused(&error), "sysctl vm.memfd_noexec=0");
        assert!(!is_refused(&anyhow!(Errno::EINVAL)) && !is_refused(&anyhow!("no incident")));
    }
}
