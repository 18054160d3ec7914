//! System calls of the 32-bit kind, which a 64-bit process of x86-64 can make as well.

use super::Named;
use crate::report::Storm;

/// Arguments of `fail-in-32-bits`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Which call fails.
    #[arg(value_enum)]
    call: Call,
    /// How many programs.
    #[arg(long, default_value_t = 60)]
    programs: u64,
}

/// What a 32-bit program fails to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Call {
    /// An exec of a file that this process has open for writing.
    Exec,
    /// An open for writing of its own file.
    Open,
    /// The exec; and it is a 64-bit program that makes 32-bit calls, in a child that it forks by one.
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

/// Becomes a 32-bit program that waits for a byte on stdin.
pub(crate) fn wait() -> anyhow::Result<()> {
    #[cfg(target_arch = "x86_64")]
    return int80::wait();
    #[cfg(not(target_arch = "x86_64"))]
    Err(unsupported())
}

/// Starts 32-bit programs, each of which fails.
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
        must_exist()?;
        let busy = Busy::new()?;
        let victim = busy.victim()?;
        let path = low(&terminated(&busy.path))?;
        let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as u32;
        // SAFETY: open(2) of a C string.
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
        must_exist()?;
        busy.victim_by("execve", &busy.path, exec_of(busy)?)
    }

    /// An exec of a file by a 32-bit call.
    fn exec_of(busy: &Busy) -> Result<impl Fn() -> Errno> {
        let path = low(&terminated(&busy.path))?;
        let argv = low(&[path.to_ne_bytes(), [0; 4]].concat())?;
        let envp = low(&[0; 4])?;
        Ok(move || {
            // SAFETY: execve(2) of a C string and lists of them that end with a null pointer.
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

    /// A call that the file of a running program refuses.
    fn refused(
        syscall: &str,
        number: u32,
        arguments: impl FnOnce(u32) -> [u32; 3],
    ) -> Result<Scene> {
        must_exist()?;
        running::one_runs(syscall, |path| {
            let path = low(&terminated(path)).map_err(|_| Errno::ENOMEM)?;
            // SAFETY: a call that takes a C string and numbers.
            let result = unsafe { call(number, arguments(path)) };
            if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) }
        })
    }

    /// Starts 32-bit programs, each of which fails.
    pub(super) fn fail(args: &Args) -> Result<Storm> {
        must_exist()?;
        let dir = stage::directory(Path::new(stage::PLACE))?;
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

    /// Does something in a child that is forked by a 32-bit call; gives its status.
    fn in_a_child(body: impl FnOnce() -> Errno) -> i32 {
        // SAFETY: fork(2), in a process of one thread.
        match unsafe { call(FORK, [0; 3]) } {
            // SAFETY: always sound; exit(3) would flush and run what belongs to the parent.
            0 => unsafe { libc::_exit(body() as i32) },
            child => wait_for(Pid::from_raw(child)).unwrap_or(-1),
        }
    }

    /// A 32-bit program that fails.
    fn program(call: Call, path: &Path, busy: &Path) -> Result<Program> {
        let string = elf::DATA_IN_32_BITS;
        let program = match call {
            Call::Exec | Call::Int80 => {
                // The path, and behind it the list of arguments: the path alone.
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

    /// Becomes a 32-bit program that waits for a byte on stdin.
    pub(crate) fn wait() -> Result<()> {
        must_exist()?;
        let dir = stage::directory(Path::new(stage::PLACE))?;
        let path = dir.path().join("waits");
        fs::write(&path, elf::waits_in_32_bits())?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        let program = Program::new(&path)?;
        let child = fork(|| program.exec() as i32)?;
        ensure!(wait_for(child)? == 0, "the 32-bit program failed");
        Ok(())
    }

    /// Kernels without such calls end whoever makes one.
    fn must_exist() -> Result<()> {
        // SAFETY: getpid(2).
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

    /// A copy at an address of 32 bits, there until the process ends.
    fn low(bytes: &[u8]) -> Result<u32> {
        let length = NonZero::new(bytes.len()).context("nothing to copy")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_32BIT;
        // SAFETY: a new mapping, as long as what is copied to it.
        let place = unsafe {
            let place = mmap_anonymous(None, length, protection, flags)?.cast::<u8>();
            place.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            place
        };
        Ok(u32::try_from(place.addr().get())?)
    }

    /// A 32-bit system call; gives what the kernel returned.
    ///
    /// # Safety
    ///
    /// As for the call.
    unsafe fn call(number: u32, arguments: [u32; 3]) -> i32 {
        let [first, second, third] = arguments.map(u64::from);
        let result: u64;
        // SAFETY: the caller's. The first argument goes in rbx, which is the compiler's own; the
        // entry of older kernels does not keep r8 to r11.
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
