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

use super::{Finding, Machine, Probe, privileges::how_to_get_rights};
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

/// How long the tracer may take to report the failure that `check` makes.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);

const NO_TRACEFS: &str = "boot a kernel built with CONFIG_FTRACE_SYSCALLS=y";

pub(super) fn probes() -> Vec<Probe> {
    let mut programs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Tracepoint { name, program, .. } in tracepoints() {
        programs.entry(name).or_default().push(program);
    }
    let tracefs = "to look up the numbers of the system calls' tracepoints";
    let mut facts = vec![Probe::new("tracefs", tracefs, self::tracefs)];
    facts.extend(tracepoints().filter_map(|tracepoint| {
        let purpose =
            format!("to attach the program {}", programs.remove(tracepoint.name)?.join(" and "));
        Some(Probe::new(tracepoint.name, purpose, move |machine| {
            tracepoint_finding(tracepoint, machine)
        }))
    }));
    facts.push(Probe::new("self-trace", "to trace a failure from start to end", self_trace).last());
    facts
}

fn tracefs(machine: &Machine) -> Finding {
    match machine.syscalls() {
        Err(unreachable) => Finding::missing(unreachable.to_string(), tracefs_remedy(unreachable)),
        Ok(Err(error)) => Finding::missing(format!("{error:#}"), NO_TRACEFS),
        Ok(Ok(_)) => Finding::ok(tracefs::mounted().map_or_else(
            || "not mounted; the tracer mounts it for its own process".to_owned(),
            |at| format!("mounted at {at}"),
        )),
    }
}

/// The remedy for an unreachable tracefs.
fn tracefs_remedy(unreachable: &Unreachable) -> String {
    match unreachable {
        Unreachable::Unmounted(Errno::ENODEV | Errno::ENOENT) => NO_TRACEFS.to_owned(),
        Unreachable::Closed(_) => how_to_get_rights(),
        Unreachable::Unmounted(_) => {
            let sudo = if geteuid().is_root() { "" } else { "sudo " };
            format!("{sudo}mount -t tracefs nodev {}", tracefs::MOUNTS[0])
        }
    }
}

/// Whether the kernel has a tracepoint.
fn tracepoint_finding(Tracepoint { name, kind, .. }: Tracepoint, machine: &Machine) -> Finding {
    match kind {
        TracepointKind::Syscall { optional } => match machine.syscalls() {
            Ok(Ok(names)) if names.contains(name) => Finding::ok("found"),
            Ok(Ok(_)) if optional => Finding::ok("not needed: this kernel has no such call"),
            Ok(Ok(_)) => Finding::missing("not in this kernel", NO_TRACEFS),
            _ => Finding::unknown("cannot read tracefs"),
        },
        TracepointKind::Raw | TracepointKind::Ring => match machine.btf() {
            Err(_) => Finding::unknown("cannot read the kernel's BTF"),
            Ok(btf) if kind == TracepointKind::Ring => {
                io_uring_finding(features::ring_completion(btf) != RingCompletion::Unknown)
            }
            Ok(btf) if btf.has_tracepoint(name) => Finding::ok("found"),
            Ok(_) => Finding::missing(
                "not in this kernel",
                "boot a kernel built with CONFIG_TRACEPOINTS=y",
            ),
        },
    }
}

fn io_uring_finding(is_known: bool) -> Finding {
    if is_known {
        return Finding::ok("found");
    }
    Finding::degraded(
        "not in this kernel, or does not name the request (before 6.0)",
        "reports name the holders of a file opened by io_uring, but not its opener",
    )
}

/// Makes a failure under the tracer, and checks the incident.
fn self_trace(machine: &Machine) -> Finding {
    if !machine.nothing_missing.get() {
        return Finding::unknown("not tried: fix the missing facts first");
    }
    let began = Instant::now();
    let remedy = "report this as an issue, with the output of the same command with -vv";
    match traced_failure() {
        Err(error) => {
            let remedy = if is_permission_error(&error) {
                permission_remedy(&error)
            } else {
                remedy.to_owned()
            };
            Finding::missing(format!("{error:#}"), remedy)
        }
        Ok(incident) => {
            let Incident { file, verdict, explained, complete, holders, .. } = &incident;
            let own = Some(std::process::id());
            let own = holders.first().is_some_and(|holder| holder.local_pid == own);
            let result = format!(
                "{}: {explained} of {} writers explained",
                text::name(verdict.kind),
                file.writers.unwrap_or(0),
            );
            if *complete && own && verdict.kind == VerdictKind::StillOpen {
                let took = began.elapsed().as_millis();
                Finding::ok(format!("made a failure, explained in {took} ms; {result}"))
            } else {
                Finding::missing(format!("made a failure, not explained; {result}"), remedy)
            }
        }
    }
}

/// Whether a missing right caused the error.
fn is_permission_error(error: &anyhow::Error) -> bool {
    let errno = |cause: &(dyn std::error::Error + 'static)| {
        let errno = cause.downcast_ref::<Errno>().map(|errno| *errno as i32);
        errno.or_else(|| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error))
    };
    error.chain().filter_map(errno).any(|errno| [libc::EPERM, libc::EACCES].contains(&errno))
}

/// The remedy for a missing right.
fn permission_remedy(error: &anyhow::Error) -> String {
    if error.chain().any(|cause| cause.to_string() == calibrate::NO_MEMFD) {
        "sysctl vm.memfd_noexec=0".to_owned()
    } else if geteuid().is_root() {
        "allow it in seccomp or the security module, which refuses it to root (docker run --privileged)"
            .to_owned()
    } else {
        how_to_get_rights()
    }
}

/// Traces an exec that fails because this process has the file open.
fn traced_failure() -> Result<Incident> {
    let pid = std::process::id();
    let tracer = Tracer::start(&Options { roots: Some(vec![pid]), ..Options::default() })?;
    let (live, wait_until_live) = mpsc::channel();
    let recorder = Recorder { live, incident: Arc::default() };
    let incident = Arc::clone(&recorder.incident);
    let trace_run = TraceRun {
        tracer,
        filter: Filter { pids: vec![pid], ..Filter::default() },
        provoke: None,
        sinks: vec![Sink::direct("the check", recorder)],
        prepared: None,
        limits: Limits { duration: Some(REPORT_TIMEOUT), incidents: Some(1) },
        ends_command: false,
    };
    let failure = thread::spawn(move || wait_until_live.recv().map(|()| calibrate::busy_exec()));
    trace_run.run(&Notify::new(), |_| {})?;
    let failed =
        failure.join().ok().and_then(Result::ok).context("the failing exec did not run")??;
    ensure!(failed, calibrate::ALLOWED);
    let incident = incident.lock().unwrap_or_else(PoisonError::into_inner).take();
    incident.context("made a failure, but the tracer did not report it")
}

/// Records the last incident.
struct Recorder {
    /// Gets a message once tracing is live.
    live: mpsc::Sender<()>,
    incident: Arc<Mutex<Option<Incident>>>,
}

impl Output for Recorder {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            // A second send fails: the thread has ended.
            Line::Meta(_) => self.live.send(()).unwrap_or_default(),
            Line::Incident(incident) => {
                let mut recorded = self.incident.lock().unwrap_or_else(PoisonError::into_inner);
                *recorded = Some(Incident::clone(incident));
            }
            Line::NearMiss(_) | Line::Refusal(_) | Line::Lost(_) | Line::Summary(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn permission_errors_are_not_reported_as_bugs() {
        for errno in [Errno::EPERM, Errno::EACCES] {
            let error = anyhow::Error::from(errno).context("cannot open the tracepoint x");
            assert!(is_permission_error(&error));
            assert!(!permission_remedy(&error).contains("report"), "{}", permission_remedy(&error));
            let error = anyhow::Error::from(io::Error::from(errno)).context("cannot load");
            assert!(is_permission_error(&error));
        }
        let error = anyhow::Error::from(Errno::EACCES).context(calibrate::NO_MEMFD).context("made");
        assert_eq!(permission_remedy(&error), "sysctl vm.memfd_noexec=0");
        assert!(
            !is_permission_error(&anyhow!(Errno::EINVAL))
                && !is_permission_error(&anyhow!("no incident"))
        );
    }
}
