//! The integration tests on other kernels: each in a virtual machine of its own.

mod arch;
mod document;
mod image;
mod kernel;
mod packages;
mod qemu;
mod report;
mod suite;
mod summary;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::command::{command, output, step, target_dir};
use arch::Arch;
use image::Image;
use kernel::Kernel;
use packages::Packages;
use qemu::{Accelerator, NoLine, Qemu, Task};
use report::{Outcome, Report};
use suite::Suite;
use summary::{Run, Summary};

/// The kernels that users run, as Debian's releases have them.
const VERSIONS: [&str; 6] = ["5.10", "6.1", "6.12", "6.18", "7.2", "6.12-arm64"];

/// What the tests said in the last run of all on a kernel, and of some.
const ALL: &str = "tests.log";
const SOME: &str = "some.log";

/// What is written for users.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md");

/// Within which init runs, or the boot has failed.
const BOOT: Duration = Duration::from_secs(90);

/// The same for a boot that may only tell whether KVM is usable.
const PROBE: Duration = Duration::from_secs(20);

/// How much longer than a test has a machine may say nothing while tests run; else it hangs.
const SILENCE: Duration = Duration::from_secs(60);

/// Within which all tests of a kernel have ended.
const KERNEL: Duration = Duration::from_secs(3600);

/// How often a machine is started: again if it dies before init runs, or hangs in a test.
const BOOTS: u32 = 6;

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernels to run the tests on, the newest of each that Debian's suites serve, such as 6.12 or
    /// 6.12-arm64
    #[arg(value_name = "VERSION", default_values_t = VERSIONS.map(str::to_owned))]
    versions: Vec<String>,
    /// Opens a shell on this kernel instead
    #[arg(long, value_name = "VERSION", conflicts_with = "versions")]
    shell: Option<String>,
    /// Where Debian's packages are fetched, if not from the mirror that this machine uses
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Writes the tables into docs/kernels.md, also of kernels on which all tests were run before
    #[arg(long, conflicts_with_all = ["filters", "shell"])]
    docs: bool,
    /// Runs only the tests whose names have one of these in them
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
    /// Emulates one processor at a time: the emulator is not faithful to kernels that patch their own
    /// code while others run it
    #[arg(skip)]
    in_turn: bool,
}

impl Args {
    /// Those of the tests on one kernel whose names have one of `filters` in them; where
    /// processors are emulated, in turn, so that the machine never stops.
    pub(crate) fn some(version: &str, filters: &[&str]) -> Self {
        Self {
            versions: vec![version.to_owned()],
            shell: None,
            mirror: None,
            docs: false,
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
            in_turn: true,
        }
    }
}

/// Runs the tests on each kernel; an error if one of them fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let versions = args.shell.as_ref().map_or(&*args.versions, std::slice::from_ref);
    let mut hosts = Vec::new();
    for arch in [Arch::Amd64, Arch::Arm64] {
        let of_arch = versions.iter().filter(|version| Arch::of(version).1 == arch);
        let versions: Vec<&str> = of_arch.map(String::as_str).collect();
        if !versions.is_empty() {
            hosts.push(Host::new(arch, &versions, args)?);
        }
    }
    if args.shell.is_some() {
        let host = hosts.first().context("no kernel to run")?;
        let kernel = host.first()?;
        let archive = host.pack(kernel, &[])?;
        return host.qemu.shell(&kernel.image, &archive, host.accelerator(kernel)?);
    }
    let mut summary = Summary::default();
    for host in &hosts {
        let found = host.accelerator(host.first()?)?;
        let accelerator = if args.in_turn { found.single() } else { found };
        for kernel in &host.kernels {
            summary.add(host.run(kernel, accelerator, args.filters.is_empty())?);
            if args.docs {
                let kept = kept(&target_dir()?.join("vm"))?;
                document::replace(Path::new(DOCUMENT), &kept.shown(true))?;
            }
        }
    }
    println!("{}", summary.shown(false));
    ensure!(summary.is_green(), "not all tests have passed: see target/vm/*/");
    Ok(())
}

/// The last run of all tests on each kernel, oldest kernel first.
fn kept(dir: &Path) -> Result<Summary> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Ok(text) = fs::read_to_string(entry.path().join(ALL)) {
            runs.extend(Run::kept(&name.to_string_lossy(), &text));
        }
    }
    runs.sort_by_key(|run| kernel::numbers(&run.kernel));
    let mut summary = Summary::default();
    for run in runs {
        summary.add(run);
    }
    Ok(summary)
}

/// What all virtual machines of an architecture have in common.
struct Host {
    dir: PathBuf,
    qemu: Qemu,
    image: Image,
    kernels: Vec<Kernel>,
    /// What is tested, by `git describe`.
    commit: String,
}

impl Host {
    /// With all that is to be built and fetched.
    fn new(arch: Arch, versions: &[&str], args: &Args) -> Result<Self> {
        let commit = output(command("git").args(["describe", "--always", "--dirty"]))
            .unwrap_or_else(|| "unknown".to_owned());
        let suite = Suite::build(arch)?;
        let dir = target_dir()?.join("vm");
        let mirror = args.mirror.as_deref();
        let own = Packages::of_debian(&dir.join("packages"), Arch::OWN, mirror)?;
        let packages = if arch.is_own() {
            own.clone()
        } else {
            let name = format!("packages-{}", arch.debian());
            Packages::of_debian(&dir.join(name), arch, mirror)?
        };
        let kernels = versions
            .iter()
            .map(|version| Kernel::fetch(&packages, version))
            .collect::<Result<Vec<Kernel>>>()?;
        let root = dir.join(format!("root-{}", arch.debian()));
        let image = Image::new(root, &own, &packages, &suite, &args.filters)?;
        Ok(Self { qemu: Qemu::of(arch, &dir)?, dir, image, kernels, commit })
    }

    fn first(&self) -> Result<&Kernel> {
        self.kernels.first().context("no kernel to run")
    }

    /// Where everything about a kernel's run is kept.
    fn dir_of(&self, kernel: &Kernel) -> Result<PathBuf> {
        let dir = self.dir.join(&kernel.version);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// The image for a kernel, without the tests that have ended.
    fn pack(&self, kernel: &Kernel, ended: &[String]) -> Result<PathBuf> {
        let archive = self.dir.join("initramfs.cpio");
        self.image.pack(kernel, ended, &archive)?;
        Ok(archive)
    }

    /// KVM if a kernel boots with it: that the device is there does not say so.
    fn accelerator(&self, kernel: &Kernel) -> Result<Accelerator> {
        if kernel.arch.is_own() && qemu::has_kvm() {
            step("trying whether KVM is usable");
            let archive = self.pack(kernel, &[])?;
            let log = self.dir_of(kernel)?.join("kvm.log");
            let machine =
                self.qemu.start(&kernel.image, &archive, Accelerator::Kvm, Task::Probe, &log)?;
            let mut report = Report::default();
            while let Ok(line) = machine.line(PROBE) {
                report.take(&line);
            }
            if report.release.is_some() {
                return Ok(Accelerator::Kvm);
            }
            eprintln!("    it is not, see {}", log.display());
        }
        step("without KVM: the processors are emulated, and everything takes ten times as long");
        Ok(Accelerator::Tcg)
    }

    /// Runs the tests on one kernel; `all` of them, or some.
    fn run(&self, kernel: &Kernel, accelerator: Accelerator, all: bool) -> Result<Run> {
        let accelerator = suited(accelerator, kernel);
        step(&format!("Linux {}", kernel.version));
        if let Some(wanted) = &kernel.instead_of {
            eprintln!("    no suite serves {wanted} today: this is the closest");
        }
        let dir = self.dir_of(kernel)?;
        let log = dir.join("serial.log");
        let began = Instant::now();
        let mut report = Report::default();
        let mut said = fs::File::create(dir.join(if all { ALL } else { SOME }))?;
        // In the end what has stopped a machine, one emulated processor at a time.
        let mut is_end = false;
        for boot in 1..=BOOTS {
            let (put_off, accelerator) = if is_end {
                (Vec::new(), accelerator.single())
            } else {
                (report.put_off(), accelerator)
            };
            let archive = self.pack(kernel, &[report.ended(), put_off].concat())?;
            let machine =
                self.qemu.start(&kernel.image, &archive, accelerator, Task::Tests, &log)?;
            let why = watch(&machine, began, &mut report, &mut said)?;
            drop(machine);
            if report.is_done {
                if is_end || report.put_off().is_empty() {
                    break;
                }
                (is_end, report.is_done) = (true, false);
                continue;
            }
            let kept = dir.join(format!("boot-{boot}.log"));
            fs::rename(&log, &kept)?;
            eprintln!("    {why}: see {}", kept.display());
            let stopped = format!("@ stopped {why}");
            writeln!(said, "{stopped}")?;
            report.take(&stopped);
        }
        let run = Run {
            kernel: kernel.version.clone(),
            wanted: kernel.instead_of.clone(),
            commit: self.commit.clone(),
            report,
            took: began.elapsed(),
        };
        said.write_all(run.last_lines().as_bytes())?;
        Ok(run)
    }
}

/// 6.12's memory is corrupted where emulated processors run in several threads, whatever it runs.
fn suited(accelerator: Accelerator, kernel: &Kernel) -> Accelerator {
    let is_corrupted = kernel.arch == Arch::Amd64 && kernel.version.starts_with("6.12.");
    if accelerator == Accelerator::Tcg && is_corrupted {
        Accelerator::TcgSingle
    } else {
        accelerator
    }
}

/// Reads what a machine says until it ends or hangs, or a test does not end, which is what this
/// gives; what tests wrote goes into a log.
fn watch(
    machine: &qemu::Running,
    began: Instant,
    report: &mut Report,
    log: &mut fs::File,
) -> Result<&'static str> {
    let mut patience = BOOT;
    let stopped = report.again.len();
    loop {
        match machine.line(patience.min(KERNEL.saturating_sub(began.elapsed()))) {
            Ok(line) => {
                patience = suite::limit() + SILENCE;
                writeln!(log, "{line}")?;
                if report.take(&line)
                    && let Some(test) = report.tests.last()
                {
                    eprintln!("    {:<60} {}", test.name, summary::cell(test));
                    if let Outcome::Failed(why) | Outcome::Skipped(why) = &test.outcome {
                        eprintln!("        {why}");
                    }
                }
                if report.again.len() > stopped {
                    return Ok("a test did not end");
                }
            }
            Err(NoLine::Ended) => return Ok("the machine died"),
            Err(NoLine::Late) => return Ok("the machine hung"),
        }
    }
}
