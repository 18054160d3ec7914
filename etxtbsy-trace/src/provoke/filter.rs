//! The seccomp filter: which calls of the command and its descendants wait for an answer.

use super::Calls;
use libc::{c_int, c_long, sock_filter, sock_fprog};
use nix::errno::Errno;
use std::{
    mem::offset_of,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

/// An fd at which the filter stops to ask about closes. A program that closes all numbers up to its limit
/// would otherwise wait for an answer a million times.
const CLOSE_FDS: u32 = 1024;
/// The first fd that the filter asks about. Standard streams are not how a program writes another.
const FIRST_FD: u32 = 3;

/// linux/audit.h: EM_X86_64, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
/// linux/audit.h: EM_AARCH64, 64 bits, little endian.
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
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
    /// A filter that asks about these calls.
    pub(super) fn new(calls: Calls, waits_killable: bool, no_new_privs: bool) -> Self {
        let killable =
            if waits_killable { libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV } else { 0 };
        // Without SPEC_ALLOW, kernels before 5.16 slow down a process with a filter.
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
            | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            | killable;
        Self { program: program(calls), flags, no_new_privs }
    }

    pub(super) fn sets_no_new_privs(&self) -> bool {
        self.no_new_privs
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

/// Whether a system call is an exec.
pub(super) fn is_exec(number: c_int) -> bool {
    [libc::SYS_execve, libc::SYS_execveat].contains(&c_long::from(number))
}

/// The BPF program. It allows all calls of other architectures: 32-bit calls have other numbers.
fn program(calls: Calls) -> Vec<sock_filter> {
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let data = |offset: usize| statement(LOAD, offset as u32);
    let allow = statement(RETURN, libc::SECCOMP_RET_ALLOW);
    let notify = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
    let mut program = vec![
        data(offset_of!(libc::seccomp_data, arch)),
        jump(IF_EQUAL, ARCH, 1, 0),
        allow,
        data(offset_of!(libc::seccomp_data, nr)),
    ];
    if calls.execs {
        for call in [libc::SYS_execve, libc::SYS_execveat] {
            program.extend([jump(IF_EQUAL, call as u32, 0, 1), notify]);
        }
    }
    if calls.closes {
        program.extend([
            jump(IF_EQUAL, libc::SYS_close as u32, 1, 0),
            allow,
            // The low half of the first argument: both architectures are little endian.
            data(offset_of!(libc::seccomp_data, args)),
            jump(IF_AT_LEAST, FIRST_FD, 0, 2),
            jump(IF_AT_LEAST, CLOSE_FDS, 1, 0),
            notify,
        ]);
    }
    program.push(allow);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns for a call.
    fn verdict(calls: Calls, arch: u32, number: c_long, argument: u64) -> u32 {
        let program = program(calls);
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD if k == 0 => accumulator = number as u32,
                LOAD if k == 4 => accumulator = arch,
                LOAD if k == 16 => accumulator = argument as u32,
                IF_EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
                IF_AT_LEAST => at += usize::from(if accumulator >= k { jt } else { jf }),
                RETURN => return k,
                other => panic!("{other:#x} {k}"),
            }
        }
    }

    #[test]
    fn the_filter_asks_about_execs_and_closes_only() {
        let (notify, allow) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        let both = Calls { execs: true, closes: true };
        let execs = Calls { execs: true, closes: false };
        for (calls, number, argument, expected) in [
            (both, libc::SYS_execve, 0, notify),
            (both, libc::SYS_execveat, 0, notify),
            (both, libc::SYS_close, 3, notify),
            (both, libc::SYS_close, 1023, notify),
            (both, libc::SYS_close, 2, allow),
            (both, libc::SYS_close, 1024, allow),
            (both, libc::SYS_close, u64::MAX, allow),
            (both, libc::SYS_read, 3, allow),
            (execs, libc::SYS_execve, 0, notify),
            (execs, libc::SYS_close, 3, allow),
            (Calls { execs: false, closes: true }, libc::SYS_execve, 3, allow),
        ] {
            assert_eq!(verdict(calls, ARCH, number, argument), expected, "{number} {argument}");
        }
    }

    #[test]
    fn calls_of_other_architectures_are_allowed() {
        let both = Calls { execs: true, closes: true };
        const I386: u32 = 0x4000_0003;
        for number in 0..600 {
            assert_eq!(verdict(both, I386, number, 3), libc::SECCOMP_RET_ALLOW);
        }
        // x32 has its own bit in the number.
        let x32 = libc::SYS_close | 0x4000_0000;
        assert_eq!(verdict(both, ARCH, x32, 3), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn this_kernel_knows_the_listener_and_no_flag_of_the_future() {
        assert!(knows_flags(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER));
        assert!(!knows_flags(1 << 31));
    }
}
