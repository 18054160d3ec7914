//! The command line: subcommands, options, and which of them conflict.

use crate::{
    demo,
    event::TreeRole,
    host::owned_output::{Content, is_stdout},
    hunt::plan::Until,
    output::{formats::Format, recording_file::Rotation},
    provoke::{LONGEST, Provocation, random_seed},
    report::formats::{self, FORMATS},
    tracer::StacksWanted,
};
use clap::{
    ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum,
    builder::{EnumValueParser, PossibleValue, PossibleValuesParser, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::{
    ffi::OsString,
    num::{NonZeroU8, NonZeroU64},
    path::PathBuf,
    time::Duration,
};

const EXAMPLES: &str = "\
Examples:
  sudo etxtbsy-trace                         trace the whole machine until Ctrl-C
  sudo etxtbsy-trace run make -j8 test       trace a command and its descendants
  sudo etxtbsy-trace hunt --provoke -- ./test.sh
                                             run a command until it fails with ETXTBSY
  sudo etxtbsy-trace --pid 4711 -d 60        trace one process tree for a minute
  sudo etxtbsy-trace run -o trace.jsonl --error-exitcode 9 -- ./ci.sh
                                             fail the job if an incident was reported
  etxtbsy-trace replay trace.jsonl           show a recording of -o, on any machine
  etxtbsy-trace report *.jsonl --format html -o report.html
                                             one report from many recordings
  etxtbsy-trace check                        check whether this kernel and user can trace

Exit status:
  run: the status of CMD; 128+N if signal N killed CMD, 127 if CMD was not found, 126 if CMD
  cannot be executed. hunt: 1 if it found a failure. Otherwise 0. 125 if etxtbsy-trace itself failed, 2 for wrong usage.";

const RUN_EXAMPLES: &str = "\
Examples:
  sudo etxtbsy-trace run make -j8 test
  sudo etxtbsy-trace run -o trace.jsonl -- sh -c './build && ./app'
  sudo etxtbsy-trace run --user ci --error-exitcode 9 -- ./ci.sh
  sudo etxtbsy-trace run --provoke -- cargo test    make the race likely, to find it before it fails

Options of etxtbsy-trace come before CMD. All words after CMD are arguments of CMD.";

const HUNT_EXAMPLES: &str = "\
Examples:
  sudo etxtbsy-trace hunt -- cargo test           until a run has a failure
  sudo etxtbsy-trace hunt --provoke --for 1m -o before.jsonl -- ./test.sh
                                                  every other run with delays
  sudo etxtbsy-trace hunt --provoke --for 1m --baseline before.jsonl -- ./test.sh
                                                  the same after a fix

Options of etxtbsy-trace come before CMD. All words after CMD are arguments of CMD.";

const REPORT_EXAMPLES: &str = "\
Examples:
  etxtbsy-trace report trace.jsonl
  etxtbsy-trace report runner-*.jsonl.zst --format markdown >>\"$GITHUB_STEP_SUMMARY\"
  etxtbsy-trace report new/*.jsonl --baseline old/*.jsonl --format html -o report.html

docs/report.md describes each format.";

/// Reports which process had the file open for writing when an exec failed with ETXTBSY,
/// "Text file busy".
///
/// Without a subcommand, traces the whole machine, or only the process trees given with --pid.
#[derive(Clone, Debug, Parser)]
#[command(name = "etxtbsy-trace", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// `None` traces the machine, or the trees of `pids`.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Report only failures in the process tree of PID: PID and its descendants (repeatable)
    ///
    /// The tree includes descendants that were forked before tracing began. Tracing ends when all
    /// processes of the tree have ended. The filter applies to the process whose call failed, unless
    /// --as changes that. The holder can be any process on the machine.
    #[arg(
        short,
        long = "pid",
        value_name = "PID",
        value_delimiter = ',',
        value_parser = pid
    )]
    pub pids: Vec<u32>,

    /// Options of all subcommands.
    #[command(flatten)]
    pub options: Options,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Start tracing, then run a command, and trace it and its descendants until it ends
    Run(Run),
    /// Run a command again and again under one tracer, to find a race, or to show that it is gone
    ///
    /// CMD's output is kept, and shown for the first runs that failed. At the end, a table shows how
    /// often execs failed, or could have. The exit status is 1 if a call failed with ETXTBSY, else 0;
    /// with --until near-miss or --near-misses-too, near misses count as well.
    Hunt(Hunt),
    /// Trace small programs that each make a known ETXTBSY failure happen
    Demo(Demo),
    /// Check whether this kernel and user can run the tracer
    ///
    /// Prints one line for each fact, with a remedy if something is missing. The exit status is 0
    /// only if tracing will work.
    Check,
    /// Show recorded JSON lines as if they were live; needs neither root nor eBPF
    Replay(Replay),
    /// Write one report from recorded JSON lines: groups, waits, examples and advice
    ///
    /// Several files are merged: of several machines, of several runs, or of one set. The report
    /// needs neither root nor eBPF.
    Report(Report),
    /// Print the JSON Schema of the JSON lines
    Schema {
        /// Which JSON lines
        #[arg(value_enum, default_value_t)]
        of: Lines,
    },
}

/// JSON lines that have a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lines {
    /// Lines of a trace
    #[default]
    Trace,
    /// Lines of `check`
    Check,
}

/// `run`.
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "etxtbsy-trace run [OPTIONS] [--] CMD [ARG]...",
    after_help = RUN_EXAMPLES
)]
pub struct Run {
    /// Run CMD as USER, a name or a uid [default: under sudo, the user who called sudo]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Run CMD even if tracing cannot start; one line on stderr gives the reason
    #[arg(long)]
    pub best_effort: bool,

    /// Send SIGTERM to CMD and its descendants when --stop-after or --duration ends tracing
    #[arg(long)]
    pub kill_after_stop: bool,

    /// How its calls are delayed.
    #[command(flatten)]
    pub delays: Delays,

    /// The command and its arguments; a name without a slash is looked up in PATH
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub argv: Vec<OsString>,
}

/// Options that delay calls of a command.
#[derive(Clone, Copy, Debug, Args)]
pub struct Delays {
    /// Make the race between a write, a fork and an exec likely, by random delays up to MAX
    /// [default MAX: 5ms]
    ///
    /// Delays the first write to each program that CMD or its descendants write, so that more forks
    /// see the write fd open, and every other exec by a child with a write fd, so that it has it for
    /// longer. This changes when CMD's calls run, not their results; docs/provoke.md has the
    /// exceptions. MAX is a number with us, ms or s, at most
    /// 1s. Without root, CMD gets no_new_privs: setuid programs such as sudo run without their
    /// privileges.
    #[arg(
        long,
        value_name = "MAX",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5ms",
        value_parser = delay
    )]
    pub provoke: Option<Duration>,

    /// Derive the delays of --provoke from N, as printed by an earlier run [default: random]
    ///
    /// N determines the delays and their order, but not which call gets which: that depends on the
    /// scheduler.
    #[arg(long, value_name = "N", value_parser = seed, requires = "provoke")]
    pub seed: Option<u64>,
}

impl Delays {
    /// What is provoked; with a random seed, unless one is given.
    #[must_use]
    pub fn provocation(self) -> Option<Provocation> {
        let seed = || self.seed.unwrap_or_else(random_seed);
        self.provoke.map(|max| Provocation { max, seed: seed() })
    }
}

/// `hunt`.
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "etxtbsy-trace hunt [OPTIONS] [--] CMD [ARG]...",
    after_help = HUNT_EXAMPLES
)]
pub struct Hunt {
    /// Run CMD N times [default: until --for or --until ends the hunt]
    #[arg(long, value_name = "N", value_parser = count)]
    pub runs: Option<NonZeroU64>,

    /// End the hunt after TIME, such as 90s, 10m or 2h; a run that is going on is ended with SIGTERM
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub time: Option<Duration>,

    /// End the hunt after the first run in which this was found [default: failure, without --runs and
    /// --for]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub until: Option<Until>,

    /// Compare with the hunt that FILE has, as -o wrote it: fixed, better, same or worse, and how sure
    /// that is
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// Run CMD as USER, a name or a uid [default: under sudo, the user who called sudo]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// How calls of every other run are delayed.
    #[command(flatten)]
    pub delays: Delays,

    /// The command and its arguments; a name without a slash is looked up in PATH
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub argv: Vec<OsString>,
}

/// `demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Demo to run [default: a tour of a few]
    #[arg(value_parser = PossibleValuesParser::new(demo::names()), hide_possible_values = true)]
    pub name: Option<String>,

    /// List the demos and what each shows, then exit
    #[arg(long, conflicts_with = "name")]
    pub list: bool,

    /// For tests: duration of a race, and of each side of a comparison.
    #[arg(long, hide = true)]
    pub seconds: Option<u64>,
}

/// `replay`.
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// File that --output or --json wrote (-: stdin)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `report`.
#[derive(Clone, Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub struct Report {
    /// Files that --output or --json wrote, also compressed with gzip or zstd (-: stdin)
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Show what changed since these recordings: groups that are new, gone, more or fewer
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub baseline: Vec<PathBuf>,

    // The same ids as those of the global options, which these take the place of.
    /// Format of the report [default: text]
    #[arg(id = "format", long = "format", value_name = "FORMAT", value_parser = report_format())]
    pub format: Option<AnyFormat>,

    /// Write the report to FILE instead of stdout
    #[arg(id = "output", short = 'o', long = "output", value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A value of `--format`.
#[derive(Clone, Copy, Debug)]
pub enum AnyFormat {
    /// Of what a trace shows.
    Live(Format),
    /// Of a report.
    Report(&'static formats::Format),
}

fn live_format() -> impl TypedValueParser<Value = AnyFormat> {
    EnumValueParser::<Format>::new().map(AnyFormat::Live)
}

fn report_format() -> impl TypedValueParser<Value = AnyFormat> {
    let values = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.help));
    PossibleValuesParser::new(values).try_map(|name| {
        formats::named(&name).map(AnyFormat::Report).ok_or("not a format of reports")
    })
}

/// Options that every subcommand takes.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "the options are independent")]
pub struct Options {
    /// Write the JSON lines to FILE, in addition to what --format shows (-: stdout)
    ///
    /// A FILE that has content already is an error, unless --append or --overwrite is given. On
    /// SIGHUP, a session without CMD and without a terminal opens FILE again, for logrotate.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// What happens to that file.
    #[command(flatten)]
    pub file: FileOptions,

    /// Output format [default: tui on a terminal, else text; with `run`, text on stderr, so that
    /// CMD keeps its stdin, stdout and terminal]
    #[arg(long, global = true, value_parser = live_format())]
    pub format: Option<AnyFormat>,

    /// Write the JSON lines to stdout; the same as --format json
    #[arg(long, global = true)]
    pub json: bool,

    /// Failures to report for the tree of --pid or `run`: those of its own calls, those that it
    /// caused by holding or running the file, or both
    #[arg(long = "as", global = true, value_name = "ROLE", value_enum, default_value_t)]
    pub role: TreeRole,

    /// Whose stacks to show: who opened the file, who forked, whose call failed
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub stacks: StacksWanted,

    /// Stop tracing after SECONDS (fractions are allowed); with `run`, CMD continues
    #[arg(short, long, global = true, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    /// Stop tracing after N incidents; with `run`, CMD continues
    #[arg(long, global = true, value_name = "N", value_parser = count)]
    pub stop_after: Option<NonZeroU64>,

    /// Exit with N (1 to 255) if CMD succeeded but an incident was reported that the failing process
    /// did not repair itself
    #[arg(long, global = true, value_name = "N", value_parser = exit_code)]
    pub error_exitcode: Option<NonZeroU8>,

    /// With --error-exitcode: near misses count too, execs that succeeded but could have failed
    #[arg(long, global = true)]
    pub near_misses_too: bool,

    /// Print only the summary at the end, as text
    #[arg(long, global = true)]
    pub summary_only: bool,

    /// Leave the mouse to the terminal: the view does not react to clicks, the wheel and drags
    #[arg(long, global = true)]
    pub no_mouse: bool,

    /// When to colour; auto depends on the terminal, `NO_COLOR` and `CLICOLOR_FORCE`
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,

    /// Log more details on stderr (repeatable)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// What happens to the file of `--output`.
#[derive(Clone, Copy, Debug, Args)]
pub struct FileOptions {
    /// Replace the FILE of --output if it has content
    #[arg(long, global = true)]
    pub overwrite: bool,

    /// Add to the FILE of --output if it has content; `report` reads all recordings in it
    #[arg(long, global = true)]
    pub append: bool,

    /// Start a new FILE before it exceeds SIZE, a number with K, M or G; keep KEEP old ones
    /// [default KEEP: 5]
    ///
    /// The old ones are FILE.1, FILE.2 and so on, the newest first; they are compressed
    /// (FILE.1.zst). Each begins with the same first line, and `report` reads all of them as one
    /// recording.
    #[arg(long, global = true, value_name = "SIZE[,KEEP]", value_parser = rotation)]
    pub rotate: Option<Rotation>,
}

impl FileOptions {
    /// What happens to the content of the file.
    #[must_use]
    pub fn content(self) -> Content {
        match self {
            Self { append: true, .. } => Content::Append,
            Self { overwrite: true, .. } => Content::Overwrite,
            _ => Content::Refuse,
        }
    }

    /// The first option that was given.
    fn given(self) -> Option<&'static str> {
        [
            ("--overwrite", self.overwrite),
            ("--append", self.append),
            ("--rotate", self.rotate.is_some()),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Cli {
    /// Parses a command line, which starts with the program's own name.
    ///
    /// Pass the error to `clap::Error::exit`: it also prints the help and the version.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(args).map_err(suggest_run)?;
        match cli.conflict() {
            Some(message) => Err(Self::command().error(ErrorKind::ArgumentConflict, message)),
            None => Ok(cli),
        }
    }

    /// Options that exclude each other. Clap does not detect a conflict between options before and
    /// after a subcommand.
    fn conflict(&self) -> Option<String> {
        if let Some((option, context)) = self.ignored() {
            return Some(format!("{option} has no effect {context}; leave it out"));
        }
        let Options { output, file, .. } = &self.options;
        if let (None, Some(option)) = (output, file.given()) {
            return Some(format!("{option} has no effect without --output FILE: add it"));
        }
        self.contradiction().map(ToOwned::to_owned)
    }

    /// The first option that would be ignored, and in which context.
    fn ignored(&self) -> Option<(&'static str, &'static str)> {
        let Options { output, format, json, role: _, duration, .. } = &self.options;
        let Options {
            stop_after, error_exitcode, summary_only, no_mouse, color, file, stacks, ..
        } = &self.options;
        let given = |option: &'static str| match option {
            "--output" => output.is_some(),
            "--format" => format.is_some(),
            "--json" => *json,
            "--duration" => duration.is_some(),
            "--stop-after" => stop_after.is_some(),
            "--error-exitcode" => error_exitcode.is_some(),
            "--summary-only" => *summary_only,
            "--no-mouse" => *no_mouse,
            "--overwrite" => file.overwrite,
            "--append" => file.append,
            "--rotate" => file.rotate.is_some(),
            "--stacks" => *stacks != StacksWanted::Auto,
            _ => *color != Color::Auto,
        };
        let (context, ignored): (_, &[&'static str]) = match &self.command {
            None => ("without a subcommand, only with run", &["--error-exitcode"]),
            Some(Command::Run(_) | Command::Demo(Demo { list: false, .. })) => return None,
            Some(Command::Hunt(_)) => (
                "with hunt, which has --for and an exit status of its own",
                &["--duration", "--error-exitcode", "--summary-only", "--no-mouse"],
            ),
            Some(Command::Check) => (
                "with check",
                &[
                    "--duration",
                    "--stop-after",
                    "--error-exitcode",
                    "--summary-only",
                    "--no-mouse",
                    "--rotate",
                    "--stacks",
                ],
            ),
            Some(Command::Replay(_)) => {
                ("with replay", &["--duration", "--error-exitcode", "--stacks"])
            }
            Some(Command::Report(_)) => (
                "with report",
                &[
                    "--json",
                    "--duration",
                    "--stop-after",
                    "--error-exitcode",
                    "--summary-only",
                    "--no-mouse",
                    "--color",
                    "--overwrite",
                    "--append",
                    "--rotate",
                    "--stacks",
                ],
            ),
            Some(command @ (Command::Schema { .. } | Command::Demo(_))) => (
                if matches!(command, Command::Demo(_)) {
                    "with demo --list"
                } else {
                    "with schema"
                },
                &[
                    "--output",
                    "--format",
                    "--json",
                    "--duration",
                    "--stop-after",
                    "--error-exitcode",
                    "--summary-only",
                    "--no-mouse",
                    "--color",
                    "--stacks",
                ],
            ),
        };
        ignored.iter().find(|option| given(option)).map(|option| (*option, context))
    }

    /// Options that contradict each other, or need another option.
    fn contradiction(&self) -> Option<&'static str> {
        let Options { output, format, json, role, duration, stop_after, file, .. } = &self.options;
        let live = self.options.live();
        if let Some(Command::Report(_)) = &self.command
            && self.pids.is_empty()
            && *role == TreeRole::Victim
        {
            let is_known = matches!(live, None | Some(Format::Text));
            return (!is_known).then_some("--format tui and json are not formats of report; --format FORMAT after `report` selects one of its formats");
        }
        if !self.pids.is_empty() && self.command.is_some() {
            Some("--pid PID cannot be used with a subcommand; `run` traces the tree of CMD")
        } else if *role != TreeRole::Victim
            && self.pids.is_empty()
            && !matches!(self.command, Some(Command::Run(_) | Command::Hunt(_)))
        {
            Some("--as ROLE needs a process tree: use it with --pid PID, `run` or `hunt`")
        } else if *json && format.is_some() {
            Some("--json is the same as --format json: use one of --json and --format")
        } else if self.options.summary_only && self.format() != Format::Text {
            Some("--summary-only is only for text: leave out --json, or use --format text")
        } else if self.options.no_mouse && self.has_no_view() {
            Some("--no-mouse is only for the view: leave it out, or use --format tui")
        } else if let Some(Command::Run(run)) = &self.command
            && run.kill_after_stop
            && duration.is_none()
            && stop_after.is_none()
        {
            Some(
                "--kill-after-stop has no effect without --stop-after N or --duration SECONDS: add one",
            )
        } else if matches!(self.command, Some(Command::Hunt(_))) && live == Some(Format::Tui) {
            Some("hunt has no view: use --format text or json, or -o FILE and `replay FILE`")
        } else if let Some(Command::Run(run)) = &self.command
            && run.best_effort
            && live == Some(Format::Tui)
        {
            Some("--best-effort cannot be used with the view: use --format text or json")
        } else if file.overwrite && file.append {
            Some("--overwrite and --append contradict each other: use one of them")
        } else if file.rotate.is_some() && output.as_deref().is_some_and(is_stdout) {
            Some("--rotate needs a file, and --output names stdout: give a file")
        } else if live == Some(Format::Tui) && output.as_deref().is_some_and(is_stdout) {
            Some("--output to stdout would write the JSON lines over the view; give a file")
        } else if self.format() == Format::Json && output.as_deref().is_some_and(is_stdout) {
            Some("--output to stdout would write the JSON lines to stdout twice; leave it out")
        } else {
            None
        }
    }

    /// Whether the view is not shown, on a terminal neither.
    fn has_no_view(&self) -> bool {
        match self.options.live() {
            Some(format) => format != Format::Tui,
            None => {
                self.options.json
                    || self.options.summary_only
                    || matches!(self.command, Some(Command::Run(_)))
            }
        }
    }

    pub(super) fn format(&self) -> Format {
        if self.options.json { Format::Json } else { self.options.live().unwrap_or(Format::Text) }
    }
}

impl Options {
    /// The format of what a trace shows, if one was chosen.
    fn live(&self) -> Option<Format> {
        match self.format {
            Some(AnyFormat::Live(format)) => Some(format),
            Some(AnyFormat::Report(_)) | None => None,
        }
    }
}

impl Report {
    /// The format of the report.
    #[must_use]
    pub fn format(&self) -> &'static formats::Format {
        match self.format {
            Some(AnyFormat::Report(format)) => format,
            Some(AnyFormat::Live(_)) | None => &FORMATS[0],
        }
    }
}

/// Suggests `run` to those who left it out.
fn suggest_run(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::InvalidSubcommand
        && error.get(ContextKind::SuggestedSubcommand).is_none()
    {
        let tip = "to trace a command: etxtbsy-trace run [--] CMD [ARG]...";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let number: f64 =
        text.parse().map_err(|_| "not a number of seconds: give one such as 60 or 0.5")?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if duration > Duration::ZERO => Ok(duration),
        _ if number > 0.0 && number < 1.0 => Err("less than a nanosecond: give a longer time"),
        _ if number > 0.0 => Err("too long; leave it out for no limit"),
        _ => Err("must be more than 0"),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let end = text.find(|it: char| it.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("not a time: give a number with s, m or h, such as 90s or 10m".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "not a time: give a number with s, m or h, such as 90s or 10m".to_owned())?;
    seconds(&(number * scale).to_string()).map_err(ToOwned::to_owned)
}

fn delay(text: &str) -> Result<Duration, String> {
    let example = "give a number with a unit such as 200us, 5ms or 1s";
    let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "us" | "µs" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        _ => return Err(format!("not a delay: {example}")),
    };
    let number: u32 = number.parse().map_err(|_| format!("not a delay: {example}"))?;
    match unit.checked_mul(number) {
        Some(delay) if delay.is_zero() => Err(format!("must be more than 0: {example}")),
        Some(delay) if delay <= LONGEST => Ok(delay),
        _ => Err("too long: give at most 1s".to_owned()),
    }
}

fn rotation(text: &str) -> Result<Rotation, &'static str> {
    /// Room for the first line and an incident of usual size.
    const LEAST: u64 = 4 << 10;
    let (size, keep) = match text.split_once(',') {
        Some((size, keep)) => (size, keep.parse().ok()),
        None => (text, Some(5)),
    };
    let keep = keep.filter(|keep| (1..=1000).contains(keep));
    let keep = keep.ok_or("not a number of files after the comma: give one from 1 to 1000")?;
    let (number, unit) = size.split_at(size.trim_end_matches(['K', 'M', 'G']).len());
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("not a size: give a number with K, M or G, such as 100M"),
    };
    let number: u64 = number.parse().map_err(|_| "not a size: give one such as 100M")?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes < LEAST => Err("too small: give at least 4K"),
        Some(bytes) => Ok(Rotation { bytes, keep }),
        None => Err("too large: leave the option out for no limit"),
    }
}

fn seed(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "not a number: give one from 0 on")
}

fn pid(text: &str) -> Result<u32, &'static str> {
    let pid = text.parse().ok().filter(|pid| (1..=i32::MAX.cast_unsigned()).contains(pid));
    pid.ok_or("not a process id: give a number from 1 on")
}

fn count(text: &str) -> Result<NonZeroU64, &'static str> {
    text.parse().map_err(|_| "not a number: give one from 1 on")
}

fn exit_code(text: &str) -> Result<NonZeroU8, &'static str> {
    text.parse().map_err(|_| "not an exit status: give a number from 1 to 255")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(args: &[&str]) -> Result<Cli, clap::Error> {
        let all = ["etxtbsy-trace"].iter().chain(args);
        Cli::from_args(all.map(OsString::from))
    }

    fn usage_error(args: &[&str]) -> String {
        let error = cli(args).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }

    fn run_argv(args: &[&str]) -> Vec<OsString> {
        match cli(args).unwrap().command {
            Some(Command::Run(run)) => run.argv,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clap_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_traces_the_machine() {
        let cli = cli(&[]).unwrap();
        assert!(cli.command.is_none());
        assert!(cli.pids.is_empty());
        assert_eq!(cli.options.color, Color::Auto);
    }

    #[test]
    fn pid_is_repeatable() {
        assert_eq!(cli(&["-p", "1", "--pid", "22", "-p3,4"]).unwrap().pids, [1, 22, 3, 4]);
        for bad in ["0", "-1", "x", "2147483648", ""] {
            usage_error(&["--pid", bad]);
        }
    }

    #[test]
    fn as_needs_a_tree() {
        let role = |args: &[&str]| cli(args).unwrap().options.role;
        assert_eq!(role(&["--pid", "1"]), TreeRole::Victim);
        assert_eq!(role(&["--pid", "1", "--as", "holder"]), TreeRole::Holder);
        assert_eq!(role(&["run", "--as", "either", "ls"]), TreeRole::Either);
        for bad in [&["--as", "holder"][..], &["check", "--as", "either"], &["-p1", "--as", "x"]] {
            usage_error(bad);
        }
    }

    #[test]
    fn words_after_cmd_belong_to_cmd() {
        assert_eq!(run_argv(&["run", "ls", "-l", "--json"]), ["ls", "-l", "--json"]);
        assert_eq!(
            run_argv(&["run", "ls", "-h", "-V", "--user", "x"])[1..],
            ["-h", "-V", "--user", "x"]
        );
        assert_eq!(run_argv(&["run", "--", "--odd", "-x"]), ["--odd", "-x"]);
        assert_eq!(run_argv(&["run", "git", "log", "--", "a"]), ["git", "log", "--", "a"]);
        assert_eq!(run_argv(&["run", "--", "git", "log", "--", "a"]), ["git", "log", "--", "a"]);
        assert_eq!(run_argv(&["run", "run", "check"]), ["run", "check"]);
        assert!(!cli(&["run", "ls", "--json"]).unwrap().options.json);
    }

    #[test]
    fn options_before_cmd_belong_to_the_tracer() {
        let cli = cli(&["run", "--user", "ci", "--json", "-vv", "ls", "-v"]).unwrap();
        assert!(cli.options.json);
        assert_eq!(cli.options.verbose, 2);
        let Some(Command::Run(run)) = cli.command else { panic!() };
        assert_eq!(run.user.as_deref(), Some("ci"));
        assert_eq!(run.argv, ["ls", "-v"]);
        usage_error(&["run", "--bogus", "ls"]);
        usage_error(&["run"]);
        usage_error(&["run", "--"]);
        usage_error(&["--user", "ci"]);
    }

    #[test]
    fn global_options_work_before_and_after_the_subcommand() {
        for args in
            [["-o", "x", "--stop-after", "2", "demo"], ["demo", "-o", "x", "--stop-after", "2"]]
        {
            let options = cli(&args).unwrap().options;
            assert_eq!(options.output, Some(PathBuf::from("x")));
            assert_eq!(options.stop_after, NonZeroU64::new(2));
        }
    }

    #[test]
    fn durations_must_be_positive() {
        assert_eq!(
            cli(&["-d", "1.5"]).unwrap().options.duration,
            Some(Duration::from_millis(1500))
        );
        for bad in ["0", "-1", "nan", "inf", "1e300", "1s", "", "1e-12"] {
            usage_error(&["-d", bad]);
        }
    }

    #[test]
    fn numbers_out_of_range_are_rejected() {
        assert_eq!(
            cli(&["--error-exitcode", "255", "run", "ls"]).unwrap().options.error_exitcode,
            NonZeroU8::new(255)
        );
        for bad in [["--error-exitcode", "0"], ["--error-exitcode", "256"], ["--stop-after", "0"]] {
            usage_error(&bad);
        }
    }

    #[test]
    fn conflicts_are_rejected_before_and_after_the_subcommand() {
        usage_error(&["--json", "--format", "text"]);
        usage_error(&["--json", "run", "--format", "text", "ls"]);
        usage_error(&["--pid", "1", "run", "ls"]);
        usage_error(&["--pid", "1", "check"]);
        usage_error(&["--json", "-o", "-"]);
        usage_error(&["--json", "-o", "/dev/stdout"]);
        usage_error(&["demo", "race", "--list"]);
    }

    #[test]
    fn options_without_effect_are_rejected() {
        for (args, words) in [
            (&["schema", "-d", "3", "-o", "f"][..], "--output has no effect with schema"),
            (&["schema", "-d", "3"], "--duration has no effect with schema"),
            (&["schema", "--color", "always"], "--color"),
            (&["demo", "--list", "--json"], "--json has no effect with demo --list"),
            (&["--error-exitcode", "9"], "--error-exitcode has no effect without a subcommand"),
            (&["--error-exitcode", "9", "--pid", "1"], "--error-exitcode"),
            (&["check", "--error-exitcode", "9"], "--error-exitcode"),
            (&["check", "--stop-after", "1"], "--stop-after"),
            (&["replay", "f", "-d", "1"], "--duration has no effect with replay"),
            (&["run", "--kill-after-stop", "ls"], "add one"),
            (&["check", "--summary-only"], "--summary-only has no effect with check"),
            (&["report", "f", "--summary-only"], "--summary-only has no effect with report"),
            (&["schema", "--summary-only"], "--summary-only has no effect with schema"),
            (&["--summary-only", "--json"], "--summary-only is only for text"),
            (
                &["run", "--summary-only", "--format", "tui", "ls"],
                "--summary-only is only for text",
            ),
            (&["replay", "f", "--summary-only", "--format", "json"], "--format text"),
            (&["run", "--best-effort", "--format", "tui", "ls"], "--best-effort"),
            (&["check", "--no-mouse"], "--no-mouse has no effect with check"),
            (&["demo", "--list", "--no-mouse"], "--no-mouse has no effect with demo --list"),
            (&["run", "--no-mouse", "ls"], "--no-mouse is only for the view"),
            (&["--no-mouse", "--json"], "--no-mouse is only for the view"),
            (&["replay", "f", "--no-mouse", "--format", "text"], "--no-mouse is only for the view"),
        ] {
            let message = usage_error(args);
            assert!(message.contains(words), "{args:?}: {message}");
        }
        for args in [
            &["schema", "-v"][..],
            &["demo", "go22315", "-d", "3", "-o", "f"],
            &["check", "--json", "-o", "f"],
            &["replay", "f", "--stop-after", "1", "-o", "f"],
            &["run", "--kill-after-stop", "-d", "1", "ls"],
            &["run", "--kill-after-stop", "--stop-after", "1", "--error-exitcode", "1", "ls"],
            &["run", "--best-effort", "--json", "ls"],
            &["run", "--summary-only", "-o", "f", "ls"],
            &["--summary-only", "--format", "text"],
            &["replay", "--summary-only", "f"],
            &["--no-mouse"],
            &["replay", "f", "--no-mouse"],
            &["run", "--no-mouse", "--format", "tui", "ls"],
        ] {
            cli(args).unwrap();
        }
    }

    #[test]
    fn rotation_has_a_size_and_a_number_of_files() {
        let rotate = |text| cli(&["-o", "f", "--rotate", text]).map(|cli| cli.options.file.rotate);
        for (text, bytes, keep) in
            [("100M", 100 << 20, 5), ("1G,12", 1 << 30, 12), ("4K,1", 4 << 10, 1)]
        {
            assert_eq!(rotate(text).unwrap(), Some(Rotation { bytes, keep }), "{text}");
        }
        for bad in ["", "100", "M", "1M,", "1M,0", "1M,x", "1KM", "3K", "99999999999G", "-1M"] {
            assert!(rotate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_the_file_need_a_file_that_is_a_recording() {
        let content = |args: &[&str]| cli(args).unwrap().options.file.content();
        assert_eq!(content(&["-o", "f"]), Content::Refuse);
        assert_eq!(content(&["-o", "f", "run", "--append", "ls"]), Content::Append);
        assert_eq!(content(&["check", "-o", "f", "--overwrite"]), Content::Overwrite);
        for (args, words) in [
            (&["--append"][..], "--append has no effect without --output FILE"),
            (&["run", "--rotate", "1M", "ls"], "--rotate has no effect without --output FILE"),
            (&["-o", "f", "--append", "--overwrite"], "contradict"),
            (&["-o", "-", "--rotate", "1M"], "--rotate needs a file"),
            (&["check", "-o", "f", "--rotate", "1M"], "--rotate has no effect with check"),
            (&["report", "f", "-o", "x", "--append"], "--append has no effect with report"),
            (&["schema", "--overwrite"], "--overwrite has no effect"),
        ] {
            let message = usage_error(args);
            assert!(message.contains(words), "{args:?}: {message}");
        }
    }

    #[test]
    fn messages_contain_no_parser_jargon() {
        for args in [
            &["-d", "-1"][..],
            &["-d", "x"],
            &["-d", "1e300"],
            &["-d", "1e-12"],
            &["--pid", "x"],
            &["--pid", "0"],
            &["--stop-after", "0"],
            &["run", "--error-exitcode", "256", "ls"],
            &["--pid", "1", "run", "ls"],
            &["--json", "--format", "text"],
        ] {
            let message = usage_error(args);
            for word in ["digit", "float", "type", "argument '", "<", "zero"] {
                let error = message.split("\n\n").next().unwrap().replace("<PID>", "PID");
                let error = error.replace("<SECONDS>", "").replace("<N>", "");
                assert!(!error.contains(word), "{word:?} in: {error}");
            }
        }
    }

    #[test]
    fn json_to_stdout_is_rejected_with_the_view() {
        assert!(usage_error(&["--format", "tui", "-o", "-"]).contains("over the view"));
        usage_error(&["replay"]);
    }

    #[test]
    fn report_has_formats_of_its_own() {
        let report = |args: &[&str]| match cli(args).unwrap().command {
            Some(Command::Report(report)) => report,
            other => panic!("{other:?}"),
        };
        assert_eq!(report(&["report", "f"]).format().name, "text");
        assert_eq!(report(&["--format", "text", "report", "f"]).format().name, "text");
        for format in FORMATS {
            let args = ["report", "f", "--format", format.name];
            assert_eq!(report(&args).format().name, format.name);
        }
        for args in [&["-o", "x", "report", "f"][..], &["report", "f", "-o", "x"]] {
            assert_eq!(report(args).output, Some(PathBuf::from("x")));
        }
        let both = report(&["report", "a", "b", "--baseline", "c", "d"]);
        assert_eq!((both.files.len(), both.baseline.len()), (2, 2));
        for bad in [
            &["report"][..],
            &["report", "f", "--format", "tui"],
            &["--format", "json", "report", "f"],
            &["report", "f", "--json"],
            &["--pid", "1", "report", "f"],
            &["run", "--format", "html", "ls"],
        ] {
            usage_error(bad);
        }
    }

    #[test]
    fn forgotten_run_is_suggested() {
        assert!(usage_error(&["make", "-j8"]).contains("etxtbsy-trace run"));
        assert!(usage_error(&["chec"]).contains("'check'"));
    }
}
