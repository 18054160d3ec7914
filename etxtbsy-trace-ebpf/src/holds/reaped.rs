//! Who has reaped whom: that orders what a child did before what its parent does next.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_user};
use etxtbsy_trace_common::{ReapKey, Reaped};

use crate::{
    kernel::{self, offset, word},
    maps::{LINEAGE, REAPED, keep},
};

/// Where `si_pid` is in a `siginfo_t` of a 64-bit process (include/uapi/asm-generic/siginfo.h).
const SI_PID: u64 = 16;
/// `WNOWAIT`, include/uapi/linux/wait.h: the child can be waited for once more.
const WNOWAIT: u64 = 0x0100_0000;
/// Through how many processes a chain of waits is followed.
const CHAIN: u32 = 4;

/// Notes that current has reaped a child, which its pid namespace has as `pid`.
#[inline(always)]
pub(crate) fn note(pid: u32) {
    let task = kernel::current();
    let reaper = kernel::tgid_of(task);
    // SAFETY: no arguments.
    let reaped = Reaped { time_ns: unsafe { bpf_ktime_get_ns() }, task };
    if let Some(lineage) = LINEAGE.get_ptr_mut(pid) {
        // SAFETY: a map value, see `maps`. Of two threads that wait for a child, one reaps it.
        unsafe {
            if (*lineage).forker.tgid == reaper && (*lineage).wait_pid == pid {
                (*lineage).reaped = reaped;
                return;
            }
        }
    }
    // In the machine's first pid namespace, it is a child that inherited nothing.
    if kernel::pid_namespace(task).0 > 0 {
        // If there is no room, a near miss may be reported that the wait has ruled out.
        keep(&REAPED, ReapKey { reaper, pid }, &reaped);
    }
}

/// Notes the child that current's waitid has reaped, if it has.
#[inline(always)]
pub(crate) fn note_waitid() {
    let registers = kernel::registers(kernel::current());
    let info = word(registers, offset!(regs_third));
    if word(registers, offset!(regs_fourth)) & WNOWAIT != 0 || info == 0 {
        return;
    }
    let mut pid = 0_u32;
    // SAFETY: the helper checks the address, and writes the size of a pid.
    let failed =
        unsafe { bpf_probe_read_user((&raw mut pid).cast(), 4, (info + SI_PID) as *const c_void) };
    if failed == 0 && pid != 0 {
        note(pid);
    }
}

/// The reaping of a process that was there at `since`, a time; `None` if none was seen.
#[inline(always)]
fn of(tgid: u32, since: u64) -> Option<(Reaped, u32)> {
    let lineage = LINEAGE.get_ptr(tgid)?;
    // SAFETY: map values, see `maps`.
    unsafe {
        let reaper = (*lineage).forker.tgid;
        let mut reaped = (*lineage).reaped;
        if reaped.time_ns == 0 {
            reaped = *REAPED.get_ptr(ReapKey { reaper, pid: (*lineage).wait_pid })?;
        }
        (reaped.time_ns > since).then_some((reaped, reaper))
    }
}

/// When a process that was there at `since` was reaped; 0 if that was not seen.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn when_reaped(tgid: u32, since: u64) -> u64 {
    match of(tgid, since) {
        Some((reaped, _)) => reaped.time_ns,
        None => 0,
    }
}

/// Whether `task` has reaped a process that was there at `since`, or one that had reaped it, and so on.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn has_reaped(task: u64, tgid: u32, since: u64) -> i32 {
    let (mut tgid, mut since) = (tgid, since);
    for _ in 0..CHAIN {
        let Some((reaped, reaper)) = of(tgid, since) else { return 0 };
        if reaped.task == task {
            return 1;
        }
        (tgid, since) = (reaper, reaped.time_ns);
    }
    0
}
