//! Measures what tracing costs: everything alternately without and with the tracer, as a ratio.
#![expect(clippy::cast_precision_loss, reason = "all counts are below 2⁵³")]

mod block;
mod build;
mod comparison;
mod condition;
mod observer;
mod operation;
mod own_cost;
mod program_times;
mod programs;
mod race;
mod ratios;
mod sample;
mod side_by_side;
mod tracer;
mod worker;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{self, command, root, step},
    table::Table,
};
use block::Block;
use condition::{Condition, PerCondition, Turn};
pub(crate) use operation::Operation;
use own_cost::Idle;
use program_times::ProgramTimes;
use tracer::{Output, Tracer};
use worker::Worker;
pub(crate) use worker::repeat;

/// In how many pairs at most the times of the programs are measured, too.
const ROUNDS: u32 = 5;

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
    /// Also measures this program, a build from before, in turn, and compares it with the one of now
    #[arg(long, value_name = "FILE", conflicts_with = "side_by_side")]
    against: Option<PathBuf>,
    /// Only repeats this operation; the benchmark starts a process with this option
    #[arg(long, hide = true)]
    pub(crate) operation: Option<Operation>,
}

/// Measures `tracer` as root; starts this program again with sudo if needed.
pub(crate) fn run(args: &Args, tracer: &Path) -> Result<()> {
    let found = |program: &Path| {
        // Absolute, because the programs start in several directories.
        program.canonicalize().with_context(|| format!("cannot find {}", program.display()))
    };
    let tracer = &found(tracer)?;
    let against = args.against.as_deref().map(found).transpose()?;
    if command::is_root() {
        return if args.side_by_side {
            side_by_side::compare(args, tracer)
        } else {
            Bench { args, tracer, against: against.as_deref() }.run()
        };
    }
    step("measuring, as root: loading eBPF programs needs root");
    let mut again = root(env::current_exe().context("cannot find the executable of this program")?);
    again.args(["bench", "--pairs", &args.pairs.to_string()]);
    again.args(["--slice", &args.slice.to_string(), "--race", &args.race.to_string()]);
    again.arg("--dir").arg(&args.dir).arg("--tracer").arg(tracer);
    again.args(against.iter().flat_map(|build| [OsStr::new("--against"), build.as_os_str()]));
    again.args(args.markdown.then_some("--markdown"));
    again.args(args.side_by_side.then_some("--side-by-side"));
    command::run(&mut again)
}

struct Bench<'a> {
    args: &'a Args,
    tracer: &'a Path,
    /// The build from before.
    against: Option<&'a Path>,
}

/// All measurements.
struct Measurements {
    blocks: PerCondition<Vec<Block>>,
    /// Nanoseconds of a call that is not traced, while perf counts another call.
    floor: Vec<f64>,
    /// How long the tracers took to start, in nanoseconds.
    ready: PerCondition<Vec<f64>>,
    /// How many records the tracers lost.
    lost: PerCondition<u64>,
    programs: ProgramTimes,
    idle: PerCondition<Idle>,
}

impl Bench<'_> {
    fn run(&self) -> Result<()> {
        println!("{}\n", machine()?);
        let output = Output::new()?;
        let mut all = Measurements {
            blocks: PerCondition::default(),
            floor: Vec::new(),
            ready: PerCondition::default(),
            lost: PerCondition::default(),
            programs: ProgramTimes::new(),
            idle: PerCondition::default(),
        };
        self.measure_pairs(&output, &mut all)?;
        let tables = ratios::tables(self.is_against(), &all.blocks, &all.floor);
        for table in &tables {
            self.print(table);
        }

        self.measure_tracers(&output, &mut all)?;
        self.print(&all.programs.table(self.is_against()));
        self.print(&own_cost::table(self.is_against(), &all.ready, &all.idle));
        for condition in Condition::traced(self.is_against()) {
            let (tracer, lost) = (self.program(*condition).display(), all.lost[*condition]);
            ensure!(lost == 0, "the measurement is incomplete: {tracer} lost {lost} records");
        }
        Ok(())
    }

    fn is_against(&self) -> bool {
        self.against.is_some()
    }

    /// The program that traces.
    fn program(&self, condition: Condition) -> &Path {
        self.against.filter(|_| condition == Condition::Before).unwrap_or(self.tracer)
    }

    /// Measures the blocks of all pairs.
    fn measure_pairs(&self, output: &Output, all: &mut Measurements) -> Result<()> {
        for pair in 0..self.args.pairs {
            eprintln!("pair {} of {}", pair + 1, self.args.pairs);
            let order = condition::order(Condition::all(self.is_against()), pair as usize);
            for Turn { condition, mirrored } in order {
                let measure =
                    |tracers| Block::undisturbed(self.args, self.tracer, tracers, mirrored);
                let block = if condition == Condition::Without {
                    let block = measure(0)?;
                    all.floor.extend(block::floor(self.args)?);
                    block
                } else {
                    let tracer = Tracer::start(self.program(condition), output)?;
                    let block = measure(1)?;
                    all.ready[condition].push(tracer.ready_after.as_secs_f64() * 1e9);
                    all.lost[condition] += tracer.stop(output)?;
                    block
                };
                all.blocks[condition].push(block);
            }
        }
        Ok(())
    }

    /// Measures what the tracers take: their programs, and the tracers themselves.
    fn measure_tracers(&self, output: &Output, all: &mut Measurements) -> Result<()> {
        for round in 0..self.args.pairs.min(ROUNDS) {
            eprintln!("programs, round {}", round + 1);
            let traced = Condition::traced(self.is_against());
            for Turn { condition, .. } in condition::order(traced, round as usize) {
                let tracer = Tracer::start(self.program(condition), output)?;
                programs::wait_for_tracers(1)?;
                if round == 0 {
                    all.idle[condition] = Idle::measure(&tracer)?;
                }
                all.programs.add(condition, &tracer, |operation| {
                    Worker::start(self.args, command(env::current_exe()?), operation)
                })?;
                all.lost[condition] += tracer.stop(output)?;
            }
        }
        Ok(())
    }

    fn print(&self, table: &Table) {
        println!("{}", table.shown(self.args.markdown));
    }
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
