//! Measures what tracing costs: everything alternately without and with the tracer, as a ratio.
#![expect(clippy::cast_precision_loss, reason = "all counts are below 2⁵³")]

mod build;
mod observer;
mod operation;
mod programs;
mod race;
mod sample;
mod side_by_side;
mod tracer;
mod worker;

use std::{
    cmp::Reverse,
    env, fs, mem,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command::{self, command, is_installed, root, step},
    table::Table,
};
use operation::Measured;
pub(crate) use operation::Operation;
use race::Race;
use sample::{Spread, bytes, count, time};

use tracer::{Output, Tracer};
pub(crate) use worker::repeat;
use worker::{Worker, measured_by};

/// How long the idle tracer is measured.
const IDLE: Duration = Duration::from_secs(3);

/// Counts calls of `truncate` on all CPUs while the command that follows runs.
const PERF: [&str; 7] = ["stat", "-a", "-o", "/dev/null", "-e", TRUNCATE, "--"];
const TRUNCATE: &str = "syscalls:sys_enter_truncate,syscalls:sys_exit_truncate";

/// Mounts tracefs if needed, then runs the command that follows.
const WITH_TRACEFS: &str = "test -e /sys/kernel/tracing/events || \
                            mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";

/// How often a block is measured again because another tracer ran meanwhile.
const TRIES: u32 = 10;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each operation is measured, both without and with tracing
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How long one measurement of a system call takes
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 200)]
    slice: u64,
    /// How long one run of the race golang/go#22315 takes; 0: no race
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    race: u64,
    /// Compares with strace and bpftrace, if installed; also measures builds and test runs
    #[arg(long)]
    side_by_side: bool,
    /// Directory of the files that are opened for writing
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,
    /// Prints tables in Markdown
    #[arg(long)]
    markdown: bool,
    /// Measures this program instead of building one
    #[arg(long, value_name = "FILE")]
    pub(crate) tracer: Option<PathBuf>,
    /// Only repeats this operation; the benchmark starts a process with this option
    #[arg(long, hide = true)]
    pub(crate) operation: Option<Operation>,
}

/// Measures `tracer` as root; starts this program again with sudo if needed.
pub(crate) fn run(args: &Args, tracer: &Path) -> Result<()> {
    if command::is_root() {
        return if args.side_by_side {
            side_by_side::compare(args, tracer)
        } else {
            Bench { args, tracer }.run()
        };
    }
    step("measuring, as root: loading eBPF programs needs root");
    let mut again = root(env::current_exe().context("cannot find the executable of this program")?);
    again.args(["bench", "--pairs", &args.pairs.to_string()]);
    again.args(["--slice", &args.slice.to_string(), "--race", &args.race.to_string()]);
    again.arg("--dir").arg(&args.dir).arg("--tracer").arg(tracer);
    again.args(args.markdown.then_some("--markdown"));
    again.args(args.side_by_side.then_some("--side-by-side"));
    command::run(&mut again)
}

struct Bench<'a> {
    args: &'a Args,
    tracer: &'a Path,
}

/// The measurements of one block, which are the same with and without the tracer.
struct Block {
    /// Nanoseconds per call, in the order of the operations.
    operations: Vec<f64>,
    /// How long a file is open for writing, in nanoseconds.
    window: Option<f64>,
    race: Option<Race>,
}

impl Bench<'_> {
    fn run(&self) -> Result<()> {
        let output = Output::new()?;
        println!("{}\n", machine()?);

        let mut lost = 0;
        let (mut without, mut with, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        let mut floor = Vec::new();
        for pair in 0..self.args.pairs {
            eprintln!("pair {} of {}", pair + 1, self.args.pairs);
            // The order alternates, so that a machine that gets faster or slower favours neither.
            for second in [false, true] {
                let with_tracer = second == (pair % 2 == 0);
                if with_tracer {
                    let tracer = Tracer::start(self.tracer, &output)?;
                    with.push(self.undisturbed(1, second)?);
                    ready.push(tracer.ready_after.as_secs_f64() * 1e9);
                    lost += tracer.stop(&output)?;
                } else {
                    without.push(self.undisturbed(0, second)?);
                    floor.extend(self.floor()?);
                }
            }
        }
        self.print_ratios(&without, &floor, &with);
        self.print_window(&without, &with);
        self.print_race(&without, &with);

        let tracer = Tracer::start(self.tracer, &output)?;
        programs::wait_for_tracers(1)?;
        let idle = Self::idle(&tracer)?;
        self.print_programs(&tracer)?;
        let mut own = Table::new(["the tracer itself", ""]);
        own.row([
            "from its start until it sees failures (quartiles)".into(),
            Spread::of(&ready).with(time),
        ]);
        for row in idle {
            own.row(row);
        }
        self.print(&own);
        lost += tracer.stop(&output)?;
        ensure!(lost == 0, "the measurement is incomplete: the tracers lost {lost} records");
        Ok(())
    }

    /// Measures a block while exactly that many tracers run on this machine.
    fn undisturbed(&self, tracers: usize, mirrored: bool) -> Result<Block> {
        for _ in 0..TRIES {
            programs::wait_for_tracers(tracers)?;
            let block = self.block(mirrored)?;
            if programs::tracers()? == tracers {
                return Ok(block);
            }
        }
        bail!("another etxtbsy-trace starts again and again: stop what starts it")
    }

    /// Measures a block, in the opposite order if `mirrored`. The last operation of one block is then
    /// measured right before the same one of the next, because the machine changes with time.
    fn block(&self, mirrored: bool) -> Result<Block> {
        let mut block = Block { operations: Vec::new(), window: None, race: None };
        if !mirrored {
            self.measure_races(&mut block)?;
        }
        let mut operations = Operation::paired();
        if mirrored {
            operations.reverse();
        }
        for operation in operations {
            block.operations.push(self.measure(operation)?.nanoseconds);
        }
        if mirrored {
            block.operations.reverse();
            self.measure_races(&mut block)?;
        }
        Ok(block)
    }

    fn measure_races(&self, block: &mut Block) -> Result<()> {
        block.race = Race::run(command(self.tracer), self.args.race, &self.args.dir)?;
        if thread::available_parallelism()?.get() > 1 {
            block.window = Some(self.measure(Operation::WINDOW)?.nanoseconds);
        }
        Ok(())
    }

    /// A call that is not traced, while perf (if installed) counts another call: the kernel's own cost as
    /// soon as any system call tracepoint is in use.
    fn floor(&self) -> Result<Option<f64>> {
        if !is_installed("perf") {
            return Ok(None);
        }
        let mut perf = with_tracefs("perf");
        perf.args(PERF).arg(env::current_exe()?);
        Ok(Some(measured_by(self.args, perf, Operation::NULL_CALL)?.nanoseconds))
    }

    fn measure(&self, operation: Operation) -> Result<Measured> {
        measured_by(self.args, command(env::current_exe()?), operation)
    }

    fn print(&self, table: &Table) {
        println!("{}", table.shown(self.args.markdown));
    }

    fn print_ratios(&self, without: &[Block], floor: &[f64], with: &[Block]) {
        let mut table =
            Table::new(["CPU time of", "without", "with", "added", "ratio (quartiles)"]);
        let mut row = |name: String, before: &[f64], after: &[f64]| {
            table.row([
                name,
                time(Spread::of(before).median),
                time(Spread::of(after).median),
                time(Spread::of_pairs(before, after, |a, b| b - a).median),
                Spread::of_pairs(before, after, |a, b| b / a).with(sample::ratio),
            ]);
        };
        for (index, operation) in Operation::paired().iter().enumerate() {
            let of = |blocks: &[Block]| blocks.iter().map(|it| it.operations[index]).collect();
            let (before, after): (Vec<f64>, Vec<f64>) = (of(without), of(with));
            row(operation.to_string(), &before, &after);
            if index == 0 && !floor.is_empty() {
                row("the same, with perf counting another call instead".into(), &before, floor);
            }
        }
        self.print(&table);
    }

    fn print_window(&self, without: &[Block], with: &[Block]) {
        let windows = |blocks: &[Block]| blocks.iter().filter_map(|it| it.window).collect();
        let (before, after): (Vec<f64>, Vec<f64>) = (windows(without), windows(with));
        if before.is_empty() {
            return;
        }
        let mut table = Table::new([
            "as forks see it",
            "without (quartiles)",
            "with (quartiles)",
            "ratio (quartiles)",
        ]);
        table.row([
            Operation::WINDOW.to_string(),
            Spread::of(&before).with(time),
            Spread::of(&after).with(time),
            Spread::of_pairs(&before, &after, |a, b| b / a).with(sample::ratio),
        ]);
        self.print(&table);
    }

    fn print_race(&self, without: &[Block], with: &[Block]) {
        let races = |blocks: &[Block]| blocks.iter().filter_map(|it| it.race).collect::<Vec<_>>();
        let (before, after) = (races(without), races(with));
        if before.is_empty() {
            return;
        }
        let speed = |races: &[Race]| races.iter().map(Race::per_second).collect::<Vec<_>>();
        let (slow, fast) = (speed(&before), speed(&after));
        let (all_before, all_after) = (Race::sum(&before), Race::sum(&after));
        let mut table = Table::new(["golang/go#22315", "without", "with", "ratio (quartiles)"]);
        table.row([
            "attempts a second".into(),
            count(Spread::of(&slow).median),
            count(Spread::of(&fast).median),
            Spread::of_pairs(&slow, &fast, |a, b| b / a).with(sample::ratio),
        ]);
        table.row([
            "failures of attempts".into(),
            all_before.to_string(),
            all_after.to_string(),
            race::risk_ratio(&before, &after),
        ]);
        self.print(&table);
    }

    /// What a tracer takes while there is nothing to see.
    fn idle(tracer: &Tracer) -> Result<Vec<[String; 2]>> {
        let before = tracer.cpu_time()?;
        thread::sleep(IDLE);
        let used = tracer.cpu_time()?.saturating_sub(before);
        let maps = programs::map_bytes(tracer.pid())?;
        Ok(vec![
            [
                format!("CPU time in {} s without a failure", IDLE.as_secs()),
                time(used.as_secs_f64() * 1e9),
            ],
            ["resident memory".into(), bytes(tracer.resident()?)],
            ["memory of its eBPF maps, in the kernel".into(), bytes(maps)],
        ])
    }

    /// Prints the kernel's statistics of each program, for each operation.
    fn print_programs(&self, tracer: &Tracer) -> Result<()> {
        let mut table =
            Table::new(["time of programs in", "program", "runs a call", "a run", "a call"]);
        let names = programs::names()?;
        let _counting = programs::enable_statistics()?;
        for operation in Operation::observed() {
            let worker = Worker::start(self.args, command(env::current_exe()?), operation)?;
            let before = programs::statistics(tracer.pid())?;
            let (worker, measured) = worker.measure()?;
            let calls = measured.calls as f64;
            let mut name = operation.to_string();
            let mut all: Vec<_> = programs::statistics(tracer.pid())?
                .into_iter()
                .map(|(tag, after)| {
                    let spent = after.since(before.get(&tag).copied().unwrap_or_default());
                    (tag, spent)
                })
                .collect();
            worker.end()?;
            all.sort_by_key(|(_, spent)| Reverse(spent.nanoseconds));
            for (tag, spent) in all {
                let runs = spent.runs as f64;
                // Fewer runs come from other processes on this machine.
                if runs >= calls / 2.0 {
                    let nanoseconds = spent.nanoseconds as f64;
                    table.row([
                        mem::take(&mut name),
                        format!("`{}`", names.get(&tag).unwrap_or(&tag)),
                        format!("{:.1}", runs / calls),
                        time(nanoseconds / runs),
                        time(nanoseconds / calls),
                    ]);
                }
            }
        }
        self.print(&table);
        Ok(())
    }
}

/// A command for a program that needs tracefs, which is mounted only for it if needed.
fn with_tracefs(program: &str) -> Command {
    let mut unshare = command("unshare");
    unshare.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh", program]);
    unshare
}

/// Describes the machine.
fn machine() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let cpus = thread::available_parallelism()?;
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or_else(String::new, |(_, model)| format!(" ({model})"));
    Ok(format!(
        "Linux {} on {}, {cpus} CPUs{model}; load average before: {}",
        kernel.trim_end(),
        env::consts::ARCH,
        load.split(' ').next().unwrap_or_default()
    ))
}
