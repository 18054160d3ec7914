//! 32-bit system calls, which a 64-bit process on x86-64 can make too.

use super::Named;
use crate::report::Storm;

/// Arguments of `fail-in-32-bits`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Which call fails.
    #[arg(value_enum)]
    call: Call,
    /// Number of programs.
    #[arg(long, default_value_t = 60)]
    programs: u64,
}

/// The call of a 32-bit program that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Call {
    /// An exec of a file that this process has open for writing.
    Exec,
    /// An open for writing of its own file.
    Open,
    /// The same exec by a 64-bit program, which makes 32-bit calls in a child that it forked by one.
    Int80,
}

#[cfg(target_arch = "x86_64")]
pub(super) const SCENES: &[Named] = &[
    ("compat-open", int80::open),
    ("compat-exec", int80::exec),
    ("compat-exec-passed", int80::exec_passed),
    ("compat-open-running", int80::open_running),
    ("compat-openat-running", int80::openat_running),
    ("compat-creat-running", int80::creat_running),
    ("compat-truncate-running", int80::truncate_running),
    ("compat-truncate64-running", int80::truncate64_running),
];

/// Runs a 32-bit program that waits for a byte on stdin.
pub(crate) fn wait() -> anyhow::Result<()> {
    #[cfg(target_arch = "x86_64")]
    return int80::wait();
    #[cfg(not(target_arch = "x86_64"))]
    Err(unsupported())
}

/// Starts 32-bit programs; one call of each fails.
pub(crate) fn fail(args: &Args) -> anyhow::Result<Storm> {
    #[cfg(target_arch = "x86_64")]
    return int80::fail(args);
    #[cfg(not(target_arch = "x86_64"))]
    match args {
        Args { call: Call::Exec | Call::Open | Call::Int80, programs: _ } => Err(unsupported()),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn unsupported() -> anyhow::Error {
    crate::Unsupported("32-bit programs: not on this architecture".into()).into()
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) const SCENES: &[Named] = &[];

#[cfg(target_arch = "x86_64")]
mod int80 {
    use super::super::{Busy, Victim, owned, passed, running};
    use super::{Args, Call};
    use crate::Unsupported;
    use crate::child::{Program, fork, wait as wait_for, wait_busy};
    use crate::report::{Scene, Storm, Task};
    use crate::{elf, stage};
    use anyhow::{Context, Result, ensure};
    use etxtbsy_trace_event::Via;
    use nix::errno::Errno;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::arch::asm;
    use std::fs;
    use std::num::NonZero;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Instant;

    // arch/x86/entry/syscalls/syscall_32.tbl
    const OPEN: u32 = 5;
    const CREAT: u32 = 8;
    const FORK: u32 = 2;
    const EXECVE: u32 = 11;
    const GETPID: u32 = 20;
    const TRUNCATE: u32 = 92;
    const TRUNCATE64: u32 = 193;
    const OPENAT: u32 = 295;

    pub(super) fn open() -> Result<Scene> {
        ensure_supported()?;
        let busy = Busy::new()?;
        let victim = busy.victim()?;
        let path = low(&terminated(&busy.path))?;
        let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as u32;
        // SAFETY: open(2) takes a C string, which is never freed.
        let fd = unsafe { call(OPEN, [path, flags, 0]) };
        ensure!(fd >= 0, "the 32-bit open: {}", Errno::from_raw(-fd));
        victim.held_by(owned(fd), Via::Open)
    }

    pub(super) fn exec() -> Result<Scene> {
        let busy = Busy::new()?;
        victim(&busy)?.held_by(busy.open()?, Via::Open)
    }

    pub(super) fn exec_passed() -> Result<Scene> {
        let busy = Busy::new()?;
        passed::passed_before(&busy, &victim(&busy)?)
    }

    fn victim(busy: &Busy) -> Result<Victim<'_>> {
        ensure_supported()?;
        busy.victim_by("execve", &busy.path, exec_of(busy)?)
    }

    /// Execs a file by a 32-bit call.
    fn exec_of(busy: &Busy) -> Result<impl Fn() -> Errno> {
        let path = low(&terminated(&busy.path))?;
        let argv = low(&[path.to_ne_bytes(), [0; 4]].concat())?;
        let envp = low(&[0; 4])?;
        Ok(move || {
            // SAFETY: execve(2) takes a C string and null-terminated lists, which are never freed.
            Errno::from_raw(-unsafe { call(EXECVE, [path, argv, envp]) })
        })
    }

    pub(super) fn open_running() -> Result<Scene> {
        refused("open", OPEN, |path| [path, libc::O_WRONLY as u32, 0])
    }

    pub(super) fn openat_running() -> Result<Scene> {
        let here = libc::AT_FDCWD.cast_unsigned();
        refused("openat", OPENAT, |path| [here, path, libc::O_WRONLY as u32])
    }

    pub(super) fn creat_running() -> Result<Scene> {
        refused("creat", CREAT, |path| [path, 0o755, 0])
    }

    pub(super) fn truncate_running() -> Result<Scene> {
        refused("truncate", TRUNCATE, |path| [path, 0, 0])
    }

    pub(super) fn truncate64_running() -> Result<Scene> {
        refused("truncate", TRUNCATE64, |path| [path, 0, 0])
    }

    /// A call that fails because the program is running.
    fn refused(
        syscall: &str,
        number: u32,
        arguments: impl FnOnce(u32) -> [u32; 3],
    ) -> Result<Scene> {
        ensure_supported()?;
        running::one_runs(syscall, |path| {
            let path = low(&terminated(path)).map_err(|_| Errno::ENOMEM)?;
            // SAFETY: the call takes a C string, which is never freed, and numbers.
            let result = unsafe { call(number, arguments(path)) };
            if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) }
        })
    }

    /// Starts 32-bit programs; one call of each fails.
    pub(super) fn fail(args: &Args) -> Result<Storm> {
        ensure_supported()?;
        let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
        let path = dir.path().join("fails");
        let busy = Busy::at(dir.path().join("busy"))?;
        let _writer = busy.open()?;
        let Args { call, programs } = *args;
        let began = Instant::now();
        let started: Vec<_> = if call == Call::Int80 {
            let exec = exec_of(&busy)?;
            (0..programs).map(|_| fork(|| in_a_child(&exec))).collect::<Result<_>>()?
        } else {
            let program = program(call, &path, &busy.path)?;
            (0..programs).map(|_| fork(|| program.exec() as i32)).collect::<Result<_>>()?
        };
        started.into_iter().try_for_each(wait_busy)?;
        let seconds = began.elapsed().as_secs_f64();
        let (scenario, pid) = ("fail-in-32-bits".into(), Task::current().pid);
        Ok(Storm { scenario, pid, path: busy.path, done: programs, failures: programs, seconds })
    }

    /// Runs `body` in a child that a 32-bit call forks; returns its exit status.
    fn in_a_child(body: impl FnOnce() -> Errno) -> i32 {
        // SAFETY: fork(2) in a process with one thread.
        match unsafe { call(FORK, [0; 3]) } {
            // SAFETY: _exit(2) has no preconditions. (exit(3) would flush the parent's buffers.)
            0 => unsafe { libc::_exit(body() as i32) },
            child => wait_for(Pid::from_raw(child)).unwrap_or(-1),
        }
    }

    /// A 32-bit program whose call fails.
    fn program(call: Call, path: &Path, busy: &Path) -> Result<Program> {
        let string = elf::DATA_IN_32_BITS;
        let program = match call {
            Call::Exec | Call::Int80 => {
                // The path, followed by the list of arguments, which has only the path.
                let mut data = terminated(busy);
                let argv = string + data.len() as u32;
                data.extend([string.to_le_bytes(), [0; 4]].concat());
                elf::calls_in_32_bits(EXECVE, [string, argv, argv + 4], &data)
            }
            Call::Open => {
                let arguments = [string, libc::O_WRONLY as u32, 0];
                elf::calls_in_32_bits(OPEN, arguments, &terminated(path))
            }
        };
        fs::write(path, program)?;
        fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
        Program::new(path)
    }

    /// Runs a 32-bit program that waits for a byte on stdin.
    pub(crate) fn wait() -> Result<()> {
        ensure_supported()?;
        let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
        let path = dir.path().join("waits");
        fs::write(&path, elf::waits_in_32_bits())?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        let program = Program::new(&path)?;
        let child = fork(|| program.exec() as i32)?;
        ensure!(wait_for(child)? == 0, "the 32-bit program failed");
        Ok(())
    }

    /// Tries a 32-bit call in a child: a kernel without 32-bit calls kills it.
    fn ensure_supported() -> Result<()> {
        // SAFETY: getpid(2) takes no arguments.
        let child = fork(|| i32::from(unsafe { call(GETPID, [0; 3]) } <= 0))?;
        match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Signaled(_, Signal::SIGSEGV, _) => {
                Err(Unsupported("32-bit system calls: no CONFIG_IA32_EMULATION".into()).into())
            }
            other => anyhow::bail!("a 32-bit getpid: {other:?}"),
        }
    }

    fn terminated(path: &Path) -> Vec<u8> {
        [path.as_os_str().as_bytes(), b"\0"].concat()
    }

    /// A copy at a 32-bit address, which stays until the process ends.
    fn low(bytes: &[u8]) -> Result<u32> {
        let length = NonZero::new(bytes.len()).context("nothing to copy")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_32BIT;
        // SAFETY: the new mapping is as long as the bytes that are copied to it.
        let place = unsafe {
            let place = mmap_anonymous(None, length, protection, flags)?.cast::<u8>();
            place.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            place
        };
        Ok(u32::try_from(place.addr().get())?)
    }

    /// Makes a 32-bit system call; returns the kernel's result.
    ///
    /// # Safety
    ///
    /// The arguments must be valid for that call.
    unsafe fn call(number: u32, arguments: [u32; 3]) -> i32 {
        let [first, second, third] = arguments.map(u64::from);
        let result: u64;
        // SAFETY: the caller guarantees valid arguments. The first goes in rbx, which the compiler reserves,
        // so it is swapped; the entry of older kernels overwrites r8 to r11.
        unsafe {
            asm!(
                "xchg {first}, rbx",
                "int 0x80",
                "xchg {first}, rbx",
                first = inout(reg) first => _,
                inlateout("rax") u64::from(number) => result,
                in("rcx") second,
                in("rdx") third,
                lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            );
        }
        result as i32
    }
}
