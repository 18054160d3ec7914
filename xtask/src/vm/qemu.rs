//! Runs QEMU: one virtual machine, from start to end.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use super::{arch::Arch, packages};
use crate::command::command;

/// The number of CPUs: more than the host often has, so that the threads of a race overtake each other.
const CPUS: &str = "4";

/// How the machine's CPUs are implemented.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Accelerator {
    /// By the host's CPUs.
    Kvm,
    /// By emulation, each CPU in its own thread.
    Tcg,
    /// By emulation in one thread: several threads corrupt the memory of some kernels.
    TcgSingle,
}

impl Accelerator {
    /// Replaces multi-threaded emulation with a single thread.
    pub(super) fn single(self) -> Self {
        if self == Self::Tcg { Self::TcgSingle } else { self }
    }

    fn arguments(self, arch: Arch) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", arch.emulated()],
            Self::TcgSingle => ["-accel", "tcg,thread=single", "-cpu", arch.emulated()],
        }
    }
}

/// The task of init.
#[derive(Clone, Copy)]
pub(super) enum Task {
    Tests,
    /// End at once, which shows that the boot works.
    Probe,
    Shell,
}

/// A QEMU program that runs on this machine.
pub(super) struct Qemu {
    arch: Arch,
    program: PathBuf,
    /// The directories of its libraries, if it is not installed.
    libraries: Vec<PathBuf>,
}

impl Qemu {
    /// The QEMU in `PATH`; otherwise one that is fetched into a directory.
    pub(super) fn of(arch: Arch, dir: &Path) -> Result<Self> {
        let (package, program) = arch.qemu();
        let installed = Self { arch, program: program.into(), libraries: Vec::new() };
        if installed.runs() {
            return Ok(installed);
        }
        let root = packages::unpacked_program(package, dir)?;
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let qemu = Self {
            arch,
            program: root.join("usr/bin").join(program),
            libraries: libraries.map(|directory| root.join(directory)).into(),
        };
        qemu.runs().then_some(qemu).with_context(|| {
            format!("the QEMU in {} does not run: install {package}", root.display())
        })
    }

    fn runs(&self) -> bool {
        let mut version = self.command();
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    }

    fn command(&self) -> Command {
        let mut qemu = command(&self.program);
        if let Ok(libraries) = std::env::join_paths(&self.libraries)
            && !libraries.is_empty()
        {
            qemu.env("LD_LIBRARY_PATH", libraries);
        }
        qemu
    }

    fn boot(
        &self,
        kernel: &Path,
        initramfs: &Path,
        accelerator: Accelerator,
        task: Task,
    ) -> Command {
        let task = match task {
            Task::Tests => "",
            Task::Probe => " vm=probe",
            Task::Shell => " vm=shell",
        };
        let mut qemu = self.command();
        // SAFETY: only prctl(2) is called between fork and exec, which is async-signal-safe.
        unsafe {
            // The machine must not outlive this process, even if that is killed.
            qemu.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let (console, lines) = self.arch.terminals();
        qemu.args(["-machine", self.arch.machine(), "-nodefaults", "-no-user-config"])
            .args(["-display", "none"])
            .args(accelerator.arguments(self.arch))
            .args(["-smp", CPUS, "-m", "2048", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            // Emulated mitigations are slow, and protect nothing here.
            .arg("-append")
            .arg(format!(
                "console={console} panic=-1 mitigations=off terminal={console} lines={lines}{task}"
            ));
        qemu
    }

    /// Boots a machine with this terminal as its console, until its shell ends.
    pub(super) fn shell(
        &self,
        kernel: &Path,
        initramfs: &Path,
        accelerator: Accelerator,
    ) -> Result<()> {
        let mut qemu = self.boot(kernel, initramfs, accelerator, Task::Shell);
        crate::command::run(qemu.args(["-serial", "mon:stdio"]))
    }

    /// Boots a machine; its first terminal is written to a file, the second delivers lines.
    pub(super) fn start(
        &self,
        kernel: &Path,
        initramfs: &Path,
        accelerator: Accelerator,
        task: Task,
        log: &Path,
    ) -> Result<Running> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let mut child = self
            .boot(kernel, initramfs, accelerator, task)
            .arg("-chardev")
            .arg(format!("file,id=console,append=on,path={}", log.display()))
            .args(["-serial", "chardev:console"])
            .args(self.arch.lines())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .context("cannot start QEMU")?;
        let stdout = child.stdout.take().context("QEMU has no stdout")?;
        Ok(Running { child, lines: lines(stdout) })
    }
}

/// Reads the lines of a pipe until its end.
fn lines(pipe: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A running virtual machine, which is killed when dropped.
pub(super) struct Running {
    child: Child,
    lines: Receiver<String>,
}

/// Why there is no line.
#[derive(Debug, PartialEq)]
pub(super) enum NoLine {
    Ended,
    /// The machine runs, but the time has passed.
    Late,
}

impl Running {
    /// Waits for the next line, at most for that time.
    pub(super) fn line(&self, within: Duration) -> Result<String, NoLine> {
        self.lines.recv_timeout(within).map_err(|e| match e {
            RecvTimeoutError::Timeout => NoLine::Late,
            RecvTimeoutError::Disconnected => NoLine::Ended,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this user may open the KVM device.
pub(super) fn has_kvm() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}
