//! A program that is stopped at a system call, and the copy of its stack that the eBPF programs would make.

use std::{
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use etxtbsy_stacks::{Key, resolve::empty_stack};
use etxtbsy_trace_common::{STACK_BYTES, Stack};
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// The system call that stops the program.
#[derive(Clone, Copy)]
pub(crate) enum Call<'a> {
    /// openat of this path for writing.
    Open(&'a Path),
    /// clone, clone3, fork or vfork.
    Fork,
    /// execve of this path.
    Exec(&'a Path),
}

/// The stopped program. Dropping it ends it.
pub(crate) struct Traced {
    pub(crate) pid: Pid,
    pub(crate) stack: Box<Stack>,
}

struct Registers {
    call: u64,
    arguments: [u64; 3],
    ip: u64,
    sp: u64,
    fp: u64,
    lr: u64,
}

impl Traced {
    /// Starts a program and stops it as it enters the call.
    pub(crate) fn at(command: &mut Command, call: Call<'_>) -> Self {
        // SAFETY: ptrace is a system call, and allocates nothing.
        let child =
            unsafe { command.pre_exec(|| ptrace::traceme().map_err(io::Error::from)) }.spawn();
        let pid = Pid::from_raw(child.unwrap().id().cast_signed());
        let mut traced = Self { pid, stack: empty_stack() };
        assert_eq!(wait(pid), WaitStatus::Stopped(pid, Signal::SIGTRAP));
        ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)
            .unwrap();
        let mut signal = None;
        let mut enters = false;
        loop {
            ptrace::syscall(pid, signal.take()).unwrap();
            match wait(pid) {
                WaitStatus::PtraceSyscall(_) => enters = !enters,
                WaitStatus::Stopped(_, Signal::SIGTRAP) => continue,
                WaitStatus::Stopped(_, found) => {
                    signal = Some(found);
                    continue;
                }
                other => panic!("the program has not made the call: {other:?}"),
            }
            let registers = registers(pid);
            if enters && traced.is(call, &registers) {
                traced.copy(&registers);
                return traced;
            }
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key::of(&self.stack)
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    fn is(&self, call: Call<'_>, registers: &Registers) -> bool {
        let [first, second, third] = registers.arguments;
        let number = registers.call.cast_signed();
        match call {
            Call::Open(path) => {
                number == libc::SYS_openat
                    && third & 3 != 0
                    && self.string(second) == path.as_os_str().as_bytes()
            }
            Call::Fork => {
                #[cfg(target_arch = "x86_64")]
                if [libc::SYS_fork, libc::SYS_vfork].contains(&number) {
                    return true;
                }
                [libc::SYS_clone, libc::SYS_clone3].contains(&number)
            }
            Call::Exec(path) => {
                number == libc::SYS_execve && self.string(first) == path.as_os_str().as_bytes()
            }
        }
    }

    fn memory(&self) -> File {
        File::open(format!("/proc/{}/mem", self.pid)).unwrap()
    }

    fn string(&self, address: u64) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        let length = self.memory().read_at(&mut bytes, address).unwrap_or(0);
        bytes[..length].split(|byte| *byte == 0).next().unwrap().to_vec()
    }

    fn copy(&mut self, registers: &Registers) {
        let Registers { ip, sp, fp, lr, .. } = *registers;
        let id = self.id();
        let stack = &mut *self.stack;
        (stack.time_ns, stack.tgid, stack.tid) = (u64::from(id), id, id);
        (stack.ip, stack.sp, stack.fp, stack.lr) = (ip, sp, fp, lr);
        let memory = File::open(format!("/proc/{id}/mem")).unwrap();
        let mut length = 0;
        while length < STACK_BYTES {
            match memory.read_at(&mut stack.bytes[length..], sp + length as u64) {
                Ok(0) | Err(_) => break,
                Ok(more) => length += more,
            }
        }
        stack.len = length as u32;
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, Some(WaitPidFlag::__WALL));
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", self.pid));
    }
}

fn wait(pid: Pid) -> WaitStatus {
    waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap()
}

#[cfg(target_arch = "x86_64")]
fn registers(pid: Pid) -> Registers {
    let found = ptrace::getregs(pid).unwrap();
    Registers {
        call: found.orig_rax,
        arguments: [found.rdi, found.rsi, found.rdx],
        ip: found.rip,
        sp: found.rsp,
        fp: found.rbp,
        lr: 0,
    }
}

#[cfg(target_arch = "aarch64")]
fn registers(pid: Pid) -> Registers {
    let found = ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(pid).unwrap();
    let all = found.regs;
    Registers {
        call: all[8],
        arguments: [all[0], all[1], all[2]],
        ip: found.pc,
        sp: found.sp,
        fp: all[29],
        lr: all[30],
    }
}
