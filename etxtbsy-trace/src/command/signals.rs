//! Signals: those for the command, and those that the caller had set to be ignored.

use libc::c_int;
use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use std::{
    io::{self},
    mem, ptr,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::io::{Interest, unix::AsyncFd};

/// The signals that are passed on to the command.
pub const FORWARDED: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals for the command, which this thread blocks and reads while the command runs.
#[derive(Debug)]
pub(super) struct CommandSignals {
    pub(super) fd: AsyncFd<SignalFd>,
    pub(super) mask_before: SigSet,
}

impl CommandSignals {
    pub(super) fn block() -> io::Result<Self> {
        let blocked: SigSet = FORWARDED.into_iter().collect();
        let fd = SignalFd::with_flags(&blocked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: the SignalFd owns its fd.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        let mask_before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { fd, mask_before })
    }
}

impl Drop for CommandSignals {
    fn drop(&mut self) {
        // Signals that arrive after the command has ended are discarded.
        while let Ok(Some(_)) = self.fd.get_ref().read_signal() {}
        let _ = self.mask_before.thread_set_mask();
    }
}

/// The signals that were ignored when this program was started: bit N - 1 is signal N.
pub(super) static IGNORED_AT_START: AtomicU64 = AtomicU64::new(0);

/// Records them before `main`, because the Rust runtime ignores SIGPIPE before it calls `main`.
#[used]
// SAFETY: before `main`, glibc and musl call the functions of this section with (argc, argv, envp). This
// one ignores the arguments, calls only sigaction(2), and does not use Rust's runtime.
#[unsafe(link_section = ".init_array")]
static RECORD_IGNORED: extern "C" fn() = {
    extern "C" fn record() {
        let ignored = (1..=64).filter(|signal| is_ignored(*signal)).map(|signal| 1 << (signal - 1));
        IGNORED_AT_START.store(ignored.fold(0, |all: u64, one: u64| all | one), Ordering::Relaxed);
    }
    record
};

/// Whether this process ignores a signal now.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: all zeroes is a valid sigaction, and `found` outlives the call. The call fails for signals
    // that the C library reserves.
    unsafe {
        let mut found: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut found) == 0
            && found.sa_sigaction == libc::SIG_IGN
    }
}

/// Resets signals to their default before the wait, because this program's handlers would write to the
/// parent. Signals that were ignored when this program was started stay ignored, as nohup(1) and
/// systemd (SIGPIPE) expect.
///
/// # Safety
///
/// Call this only in a process just forked.
pub(super) unsafe fn reset_signal_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: all zeroes is a valid sigaction with SIG_DFL, and it outlives the call.
        unsafe {
            let default: libc::sigaction = mem::zeroed();
            let ignored = IGNORED_AT_START.load(Ordering::Relaxed) >> (signal - 1) & 1 == 1;
            if !(ignored && is_ignored(signal)) {
                // Fails for signals that the C library reserves.
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}
