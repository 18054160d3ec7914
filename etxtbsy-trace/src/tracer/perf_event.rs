//! perf_event_open(2): the way to the tracepoint of one system call.

use std::{
    io, mem,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{
    PERF_FLAG_FD_CLOEXEC, perf_event_attr,
    perf_sw_ids::PERF_COUNT_SW_DUMMY,
    perf_type_id::{PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT},
};

/// Opens a disabled event of the tracepoint of that number, for every process. Takes CAP_PERFMON.
pub(super) fn of_tracepoint(number: u64) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    attributes.type_ = PERF_TYPE_TRACEPOINT as u32;
    attributes.config = number;
    let (every_process, first_cpu) = (-1, 0);
    open(&attributes, every_process, first_cpu)
}

/// Whether this process may call perf_event_open(2) at all: opens an event that counts nothing. Seccomp can forbid it,
/// and Debian's and Ubuntu's kernels allow it only with CAP_SYS_ADMIN if `kernel.perf_event_paranoid` is above 2
/// (their patch "Allow further restriction of perf_event_open").
pub fn probe() -> io::Result<()> {
    let mut attributes = attributes();
    attributes.type_ = PERF_TYPE_SOFTWARE as u32;
    attributes.config = u64::from(PERF_COUNT_SW_DUMMY as u32);
    attributes.set_exclude_kernel(1);
    let (this_process, any_cpu) = (0, -1);
    open(&attributes, this_process, any_cpu).map(|_| ())
}

/// `kernel.perf_event_paranoid`, if it can be read.
#[must_use]
pub fn paranoid() -> Option<i32> {
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    level.trim().parse().ok()
}

fn attributes() -> perf_event_attr {
    // SAFETY: integers and unions of them, for which zeros are a value.
    let mut attributes = unsafe { mem::zeroed::<perf_event_attr>() };
    attributes.size = size_of::<perf_event_attr>() as u32;
    attributes.set_disabled(1);
    attributes
}

fn open(attributes: &perf_event_attr, process: libc::pid_t, cpu: i32) -> io::Result<OwnedFd> {
    let no_group = -1;
    // SAFETY: perf_event_open(2) reads as many bytes of the attributes as they say they have.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const *attributes,
            process,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this fd.
    Ok(unsafe { OwnedFd::from_raw_fd(event as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_counts_nothing_is_open_to_all_unless_restricted() {
        match probe() {
            Ok(()) => {}
            Err(error) => assert!(
                matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::ENOSYS)),
                "{error}"
            ),
        }
    }
}
