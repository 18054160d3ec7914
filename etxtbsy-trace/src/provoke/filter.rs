//! The seccomp filter: which calls of the command and its descendants wait for an answer.

use libc::{c_int, c_long, sock_filter, sock_fprog};
use nix::errno::Errno;
use std::{
    mem::offset_of,
    ops::Range,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

/// The fds about whose writes the filter asks: not the standard streams, through which most output goes.
const FDS: Range<u32> = 3..1024;
/// Execute permission for anyone.
const EXECUTE: u32 = 0o111;

/// linux/audit.h: EM_X86_64, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
/// linux/audit.h: EM_AARCH64, 64 bits, little endian.
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_ANY_OF: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The program of a filter.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    program: Vec<sock_filter>,
    flags: u64,
    /// Whether it takes no_new_privs to install it.
    no_new_privs: bool,
}

impl Filter {
    /// A filter that asks about execs, and about calls that write if only a fatal signal can end their wait.
    pub(super) fn new(waits_killable: bool, no_new_privs: bool) -> Self {
        let killable =
            if waits_killable { libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV } else { 0 };
        // Without SPEC_ALLOW, kernels before 5.16 slow down a process with a filter.
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
            | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            | killable;
        Self { program: program(waits_killable), flags, no_new_privs }
    }

    /// Installs the filter in this process; returns its listener, which is close-on-exec.
    ///
    /// Async-signal-safe. On failure, errno has the reason.
    pub(super) fn install(&self) -> Option<OwnedFd> {
        let (one, zero): (c_long, c_long) = (1, 0);
        if self.no_new_privs {
            // SAFETY: prctl(2) gets numbers only.
            let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) };
            if set != 0 {
                return None;
            }
        }
        let program = sock_fprog {
            len: self.program.len() as u16,
            // The kernel only reads it.
            filter: self.program.as_ptr().cast_mut(),
        };
        // SAFETY: the program's pointer and length are those of a vector in `self`.
        let listener = unsafe { seccomp(self.flags, &raw const program) };
        // SAFETY: the kernel has just given this fd to this process, and nothing else knows it.
        (listener >= 0).then(|| unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
    }
}

/// Whether the kernel accepts a new filter with these flags.
pub(super) fn knows_flags(flags: u64) -> bool {
    // SAFETY: the kernel checks the flags, and then fails with EFAULT because there is no program.
    let done = unsafe { seccomp(flags, ptr::null()) };
    done < 0 && Errno::last() == Errno::EFAULT
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER.
///
/// # Safety
///
/// The program must be null or valid.
unsafe fn seccomp(flags: u64, program: *const sock_fprog) -> c_long {
    // SAFETY: as this function's.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) }
}

/// What a call about which the filter asks does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It execs a program.
    Exec,
    /// It closes a range of fds.
    CloseRange,
    /// It gives the file of an fd execute permission.
    Fchmod,
    /// It writes to an fd from memory.
    Write {
        /// Whether the memory is a list of buffers.
        list: bool,
    },
    /// It copies from another fd to an fd.
    Copy {
        /// The argument with the fd.
        to: usize,
    },
}

/// The calls about which the filter asks.
const CALLS: &[(c_long, Kind)] = &[
    (libc::SYS_execve, Kind::Exec),
    (libc::SYS_execveat, Kind::Exec),
    (libc::SYS_close_range, Kind::CloseRange),
    (libc::SYS_fchmod, Kind::Fchmod),
    (libc::SYS_write, Kind::Write { list: false }),
    (libc::SYS_pwrite64, Kind::Write { list: false }),
    (libc::SYS_writev, Kind::Write { list: true }),
    (libc::SYS_pwritev, Kind::Write { list: true }),
    (libc::SYS_copy_file_range, Kind::Copy { to: 2 }),
    (libc::SYS_sendfile, Kind::Copy { to: 0 }),
];

/// What a system call does, by its number.
pub(super) fn kind_of(number: c_int) -> Option<Kind> {
    CALLS.iter().find(|(call, _)| *call == c_long::from(number)).map(|(_, kind)| *kind)
}

/// The BPF program. It allows all calls of other architectures: 32-bit calls have other numbers.
fn program(with_writes: bool) -> Vec<sock_filter> {
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let data = |offset: usize| statement(LOAD, offset as u32);
    // The low half of an argument: both architectures are little endian.
    let argument = |at: usize| data(offset_of!(libc::seccomp_data, args) + 8 * at);
    let allow = statement(RETURN, libc::SECCOMP_RET_ALLOW);
    let notify = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
    let mut program = vec![
        data(offset_of!(libc::seccomp_data, arch)),
        jump(IF_EQUAL, ARCH, 1, 0),
        allow,
        data(offset_of!(libc::seccomp_data, nr)),
    ];
    for (call, kind) in CALLS {
        if !(with_writes || matches!(kind, Kind::Exec)) {
            continue;
        }
        let then = match kind {
            Kind::Exec => vec![notify],
            // One that only sets close-on-exec closes nothing.
            Kind::CloseRange => {
                vec![argument(2), jump(IF_ANY_OF, libc::CLOSE_RANGE_CLOEXEC, 1, 0), notify, allow]
            }
            Kind::Fchmod => vec![argument(1), jump(IF_ANY_OF, EXECUTE, 0, 1), notify, allow],
            Kind::Write { .. } | Kind::Copy { .. } => vec![
                argument(if let Kind::Copy { to } = kind { *to } else { 0 }),
                jump(IF_AT_LEAST, FDS.start, 0, 2),
                jump(IF_AT_LEAST, FDS.end, 1, 0),
                notify,
                allow,
            ],
        };
        program.push(jump(IF_EQUAL, *call as u32, 0, then.len() as u8));
        program.extend(then);
    }
    program.push(allow);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns for a call.
    fn verdict(with_writes: bool, arch: u32, number: c_long, arguments: [u64; 3]) -> u32 {
        let program = program(with_writes);
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |holds| usize::from(if holds { jt } else { jf });
            match code {
                LOAD if k == 0 => accumulator = number as u32,
                LOAD if k == 4 => accumulator = arch,
                LOAD => accumulator = arguments[(k as usize - 16) / 8] as u32,
                IF_EQUAL => at += jump(accumulator == k),
                IF_AT_LEAST => at += jump(accumulator >= k),
                IF_ANY_OF => at += jump(accumulator & k != 0),
                RETURN => return k,
                other => panic!("{other:#x} {k}"),
            }
        }
    }

    #[test]
    fn the_filter_asks_about_calls_that_can_race() {
        for (with_writes, number, arguments, asks) in [
            (true, libc::SYS_execve, [0; 3], true),
            (true, libc::SYS_execveat, [0; 3], true),
            (true, libc::SYS_write, [3, 0, 0], true),
            (true, libc::SYS_writev, [1023, 0, 0], true),
            (true, libc::SYS_write, [2, 0, 0], false),
            (true, libc::SYS_pwrite64, [1024, 0, 0], false),
            (true, libc::SYS_pwritev, [u64::MAX, 0, 0], false),
            (true, libc::SYS_fchmod, [3, 0o755, 0], true),
            (true, libc::SYS_fchmod, [3, 0o644, 0], false),
            (true, libc::SYS_fchmodat, [0, 0, 0o755], false),
            (true, libc::SYS_copy_file_range, [0, 0, 5], true),
            (true, libc::SYS_sendfile, [1, 5, 0], false),
            (true, libc::SYS_close, [3, 0, 0], false),
            (true, libc::SYS_close_range, [3, u64::MAX, 0], true),
            (true, libc::SYS_close_range, [3, u64::MAX, 4], false),
            (true, libc::SYS_read, [3, 0, 0], false),
            (false, libc::SYS_execve, [0; 3], true),
            (false, libc::SYS_write, [3, 0, 0], false),
        ] {
            let expected =
                if asks { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
            assert_eq!(
                verdict(with_writes, ARCH, number, arguments),
                expected,
                "{number} {arguments:?}"
            );
        }
    }

    #[test]
    fn calls_of_other_architectures_are_allowed() {
        const I386: u32 = 0x4000_0003;
        for number in 0..600 {
            assert_eq!(verdict(true, I386, number, [3; 3]), libc::SECCOMP_RET_ALLOW);
        }
        // x32 has its own bit in the number.
        let x32 = libc::SYS_execve | 0x4000_0000;
        assert_eq!(verdict(true, ARCH, x32, [3; 3]), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn this_kernel_knows_the_listener_and_no_flag_of_the_future() {
        assert!(knows_flags(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER));
        assert!(!knows_flags(1 << 31));
    }
}
