//! Tracepoints of system calls that a program is attached to later, when capabilities are given up.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::Context as _;
use aya_obj::generated::PERF_EVENT_IOC_SET_BPF;

use super::{perf_event, tracefs};

/// Perf events on tracepoints, disabled, so that they cost the calls next to nothing
/// (`perf_syscall_exit`, kernel/trace/trace_syscalls.c, finds neither events nor programs).
pub(super) struct Dormant {
    events: Vec<OwnedFd>,
}

impl Dormant {
    /// Opens the events of tracepoints of system calls, such as `sys_exit_recvmsg`; to be called
    /// where tracefs can be read. Takes CAP_PERFMON.
    pub(super) fn open(tracepoints: &[&str]) -> anyhow::Result<Self> {
        let events = tracepoints.iter().map(|name| {
            open(name).with_context(|| format!("cannot open the tracepoint syscalls:{name}"))
        });
        Ok(Self { events: events.collect::<Result<_, _>>()? })
    }

    /// Attaches a program to all of them, which runs for every process from then on. Takes no
    /// capability (`perf_event_set_bpf_prog`, kernel/events/core.c).
    pub(super) fn attach(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        for event in &self.events {
            #[allow(
                clippy::cast_lossless,
                reason = "the type is a signed one of 32 bits with musl"
            )]
            let request = PERF_EVENT_IOC_SET_BPF as libc::Ioctl;
            // SAFETY: an ioctl that takes a number; both fds are open for as long as it lasts.
            let attached = unsafe { libc::ioctl(event.as_raw_fd(), request, program.as_raw_fd()) };
            if attached != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

fn open(name: &str) -> anyhow::Result<OwnedFd> {
    let mount = tracefs::mounted().context("tracefs has no events")?;
    let id = fs::read_to_string(format!("{mount}/events/syscalls/{name}/id"))?;
    Ok(perf_event::of_tracepoint(id.trim().parse()?)?)
}
