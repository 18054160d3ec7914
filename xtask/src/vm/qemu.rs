//! QEMU: one virtual machine, from its start to its end.

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

/// How many: more than most machines here have, so that the threads of a race overtake each other.
const PROCESSORS: &str = "4";

/// How the processors of the machine are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Accelerator {
    /// By this machine's own.
    Kvm,
    /// By software, each in a thread of its own.
    Tcg,
    /// By software, in turn: with a thread each, some kernels find their memory corrupted.
    TcgSingle,
}

impl Accelerator {
    /// With one thread where there would be several.
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

/// What init is to do.
#[derive(Clone, Copy)]
pub(super) enum Task {
    Tests,
    /// End at once: to see whether it gets that far.
    Probe,
    Shell,
}

/// A QEMU that runs here.
pub(super) struct Qemu {
    arch: Arch,
    program: PathBuf,
    /// Where its libraries are, if it is not installed.
    libraries: Vec<PathBuf>,
}

impl Qemu {
    /// The one in `PATH`; else one that is fetched into a directory.
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
        // SAFETY: prctl(2) alone is called between fork and exec, and may be.
        unsafe {
            // However this process ends, none stays behind.
            qemu.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let (console, lines) = self.arch.terminals();
        qemu.args(["-machine", self.arch.machine(), "-nodefaults", "-no-user-config"])
            .args(["-display", "none"])
            .args(accelerator.arguments(self.arch))
            .args(["-smp", PROCESSORS, "-m", "2048", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            // The mitigations would be emulated, at length, for nobody.
            .arg("-append")
            .arg(format!(
                "console={console} panic=-1 mitigations=off terminal={console} lines={lines}{task}"
            ));
        qemu
    }

    /// Boots it with this terminal as its console, until its shell ends.
    pub(super) fn shell(
        &self,
        kernel: &Path,
        initramfs: &Path,
        accelerator: Accelerator,
    ) -> Result<()> {
        let mut qemu = self.boot(kernel, initramfs, accelerator, Task::Shell);
        crate::command::run(qemu.args(["-serial", "mon:stdio"]))
    }

    /// Boots it; its first terminal goes into a file, from the second come lines.
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

/// The lines of a pipe, until its end.
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

/// A virtual machine that runs; it ends with this value.
pub(super) struct Running {
    child: Child,
    lines: Receiver<String>,
}

/// Why there is no line.
#[derive(Debug, PartialEq)]
pub(super) enum NoLine {
    Ended,
    /// It runs, but the time is over.
    Late,
}

impl Running {
    /// The next line, if it comes within that time.
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

/// True if this user may try KVM.
pub(super) fn has_kvm() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}
