//! Runs the live tests on other kernels, each in its own virtual machine.

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

/// Kernels that users run, from Debian's releases.
const VERSIONS: [&str; 6] = ["5.10", "6.1", "6.12", "6.18", "7.2", "6.12-arm64"];

/// The log of the last run of all tests on a kernel, and of some tests.
const ALL: &str = "tests.log";
const SOME: &str = "some.log";

/// The page with the results.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md");

/// The time limit for a boot until init runs.
const BOOT: Duration = Duration::from_secs(90);

/// The time limit for the boot that tries whether KVM is usable.
const PROBE: Duration = Duration::from_secs(20);

/// How much longer than a test's limit a machine may print nothing before it counts as hung.
const SILENCE: Duration = Duration::from_secs(60);

/// The time limit for all tests on a kernel.
const KERNEL: Duration = Duration::from_secs(3600);

/// How often a machine is started: again if it dies before init runs, or hangs in a test.
const BOOTS: u32 = 6;

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel versions, such as 6.12 or 6.12-arm64; the newest of each in Debian's suites is used
    #[arg(value_name = "VERSION", default_values_t = VERSIONS.map(str::to_owned))]
    versions: Vec<String>,
    /// Opens a shell on this kernel instead
    #[arg(long, value_name = "VERSION", conflicts_with = "versions")]
    shell: Option<String>,
    /// Debian mirror [default: the mirror of this machine's apt]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Writes the results into docs/kernels.md, including earlier runs of all tests on other kernels
    #[arg(long, conflicts_with_all = ["filters", "shell"])]
    docs: bool,
    /// Runs only the tests whose names contain one of these
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
    /// Emulates one CPU at a time, because multi-threaded emulation is not faithful to kernels that patch
    /// their own code while it runs
    #[arg(skip)]
    in_turn: bool,
    /// Tests the release in this directory instead of what cargo builds
    #[arg(skip)]
    release: Option<PathBuf>,
}

impl Args {
    /// Arguments for the tests on one kernel whose names contain one of `filters`. Emulated CPUs run one at a
    /// time, so that the machine never stops.
    pub(crate) fn some(version: &str, filters: &[&str]) -> Self {
        Self {
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
            ..Self::of(&[version])
        }
    }

    /// Arguments for the tests of the release in a directory.
    pub(crate) fn of_release(place: &Path, versions: &[&str]) -> Self {
        Self { release: Some(place.to_owned()), ..Self::of(versions) }
    }

    fn of(versions: &[&str]) -> Self {
        Self {
            versions: versions.iter().map(|version| (*version).to_owned()).collect(),
            shell: None,
            mirror: None,
            docs: false,
            filters: Vec::new(),
            in_turn: true,
            release: None,
        }
    }

    /// Whether all live tests run.
    fn is_all(&self) -> bool {
        self.filters.is_empty() && self.release.is_none()
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
            summary.add(host.run(kernel, accelerator, args.is_all())?);
            if args.docs {
                let earlier = earlier_runs(&target_dir()?.join("vm"))?;
                document::replace(Path::new(DOCUMENT), &earlier.shown(true))?;
            }
        }
    }
    println!("{}", summary.shown(false));
    ensure!(summary.is_green(), "not all tests have passed: see target/vm/*/");
    Ok(())
}

/// The last run of all tests on each kernel, oldest kernel first.
fn earlier_runs(dir: &Path) -> Result<Summary> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Ok(text) = fs::read_to_string(entry.path().join(ALL)) {
            runs.extend(Run::parse(&name.to_string_lossy(), &text));
        }
    }
    runs.sort_by_key(|run| kernel::numbers(&run.kernel));
    let mut summary = Summary::default();
    for run in runs {
        summary.add(run);
    }
    Ok(summary)
}

/// What all virtual machines of an architecture share.
struct Host {
    dir: PathBuf,
    qemu: Qemu,
    image: Image,
    kernels: Vec<Kernel>,
    /// The tested commit, by `git describe`.
    commit: String,
}

impl Host {
    /// Builds and fetches everything.
    fn new(arch: Arch, versions: &[&str], args: &Args) -> Result<Self> {
        let commit = output(command("git").args(["describe", "--always", "--dirty"]))
            .unwrap_or_else(|| "unknown".to_owned());
        let suite = match &args.release {
            Some(place) => Suite::of_release(place, arch)?,
            None => Suite::build(arch)?,
        };
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

    /// The directory of a kernel's logs.
    fn dir_of(&self, kernel: &Kernel) -> Result<PathBuf> {
        let dir = self.dir.join(&kernel.version);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Packs the image for a kernel, without the tests in `ended`.
    fn pack(&self, kernel: &Kernel, ended: &[String]) -> Result<PathBuf> {
        let archive = self.dir.join("initramfs.cpio");
        self.image.pack(kernel, ended, &archive)?;
        Ok(archive)
    }

    /// KVM if a kernel boots with it: the device alone does not mean that KVM works.
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
            eprintln!("    it is not usable, see {}", log.display());
        }
        step("without KVM: CPUs are emulated, and everything takes ten times as long");
        Ok(Accelerator::Tcg)
    }

    /// Runs the tests on one kernel: all, or some.
    fn run(&self, kernel: &Kernel, accelerator: Accelerator, all: bool) -> Result<Run> {
        let accelerator = suited(accelerator, kernel);
        step(&format!("Linux {}", kernel.version));
        if let Some(wanted) = &kernel.instead_of {
            eprintln!("    no suite has {wanted} now: this is the closest");
        }
        let dir = self.dir_of(kernel)?;
        let log = dir.join("serial.log");
        let began = Instant::now();
        let mut report = Report::default();
        let mut output_log = fs::File::create(dir.join(if all { ALL } else { SOME }))?;
        // Last, the tests that stopped a machine run again, with one emulated CPU at a time.
        let mut is_last_pass = false;
        for boot in 1..=BOOTS {
            let (postponed, accelerator) = if is_last_pass {
                (Vec::new(), accelerator.single())
            } else {
                (report.postponed(), accelerator)
            };
            let archive = self.pack(kernel, &[report.ended(), postponed].concat())?;
            let machine =
                self.qemu.start(&kernel.image, &archive, accelerator, Task::Tests, &log)?;
            let why = watch(&machine, began, &mut report, &mut output_log)?;
            drop(machine);
            if report.is_done {
                if is_last_pass || report.postponed().is_empty() {
                    break;
                }
                (is_last_pass, report.is_done) = (true, false);
                continue;
            }
            let boot_log = dir.join(format!("boot-{boot}.log"));
            fs::rename(&log, &boot_log)?;
            eprintln!("    {why}: see {}", boot_log.display());
            let stopped = format!("@ stopped {why}");
            writeln!(output_log, "{stopped}")?;
            report.take(&stopped);
        }
        let run = Run {
            kernel: kernel.version.clone(),
            wanted: kernel.instead_of.clone(),
            commit: self.commit.clone(),
            report,
            took: began.elapsed(),
        };
        output_log.write_all(run.last_lines().as_bytes())?;
        Ok(run)
    }
}

/// Multi-threaded emulation corrupts the memory of 6.12.
fn suited(accelerator: Accelerator, kernel: &Kernel) -> Accelerator {
    let is_corrupted = kernel.arch == Arch::Amd64 && kernel.version.starts_with("6.12.");
    if accelerator == Accelerator::Tcg && is_corrupted {
        Accelerator::TcgSingle
    } else {
        accelerator
    }
}

/// Reads a machine's lines into the report and the log until the machine ends or hangs, or a test does not
/// end; returns which.
fn watch(
    machine: &qemu::Running,
    began: Instant,
    report: &mut Report,
    log: &mut fs::File,
) -> Result<&'static str> {
    let mut patience = BOOT;
    let stopped = report.retried.len();
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
                if report.retried.len() > stopped {
                    return Ok("a test did not end");
                }
            }
            Err(NoLine::Ended) => return Ok("the machine died"),
            Err(NoLine::Late) => return Ok("the machine hung"),
        }
    }
}
