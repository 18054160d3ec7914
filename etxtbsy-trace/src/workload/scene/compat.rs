//! System calls of the 32-bit kind, which a 64-bit process of x86-64 can make as well.

use super::Named;

#[cfg(target_arch = "x86_64")]
pub(super) const SCENES: &[Named] = &[("compat-open", int80::open), ("compat-exec", int80::exec)];

/// Becomes a 32-bit program that waits for a byte on stdin.
pub(in crate::workload) fn wait() -> anyhow::Result<()> {
    #[cfg(target_arch = "x86_64")]
    return int80::wait();
    #[cfg(not(target_arch = "x86_64"))]
    Err(crate::workload::Unsupported("32-bit programs: not on this architecture".into()).into())
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) const SCENES: &[Named] = &[];

#[cfg(target_arch = "x86_64")]
mod int80 {
    use super::super::{Busy, owned};
    use crate::lines::Via;
    use crate::workload::Unsupported;
    use crate::workload::child::{Program, fork, wait as wait_for};
    use crate::workload::report::Scene;
    use crate::workload::{elf, stage};
    use anyhow::{Context, Result, ensure};
    use nix::errno::Errno;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::arch::asm;
    use std::fs;
    use std::num::NonZero;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    // arch/x86/entry/syscalls/syscall_32.tbl
    const OPEN: u64 = 5;
    const EXECVE: u64 = 11;
    const GETPID: u64 = 20;

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
        must_exist()?;
        let busy = Busy::new()?;
        let path = low(&terminated(&busy.path))?;
        let argv = low(&[path.to_ne_bytes(), [0; 4]].concat())?;
        let envp = low(&[0; 4])?;
        let victim = busy.victim_by("execve", &busy.path, || {
            // SAFETY: execve(2) of a C string and lists of them that end with a null pointer.
            Errno::from_raw(-unsafe { call(EXECVE, [path, argv, envp]) })
        })?;
        victim.held_by(busy.open()?, Via::Open)
    }

    /// Becomes a 32-bit program that waits for a byte on stdin.
    pub(in crate::workload) fn wait() -> Result<()> {
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
    unsafe fn call(number: u64, arguments: [u32; 3]) -> i32 {
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
                inlateout("rax") number => result,
                in("rcx") second,
                in("rdx") third,
                lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            );
        }
        result as i32
    }
}
