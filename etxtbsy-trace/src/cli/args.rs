//! The command line, and what it says about the terminal.

use crate::{demo, event::TreeRole, host::owned_output::is_stdout, output::formats::Format};
use clap::{
    ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum,
    builder::PossibleValuesParser,
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
  sudo etxtbsy-trace                         watch the whole machine until Ctrl-C
  sudo etxtbsy-trace run make -j8 test       trace a command and all it starts
  sudo etxtbsy-trace --pid 4711 -d 60        one process tree, for a minute
  sudo etxtbsy-trace run -o trace.jsonl --error-exitcode 9 -- ./ci.sh
                                             fail the job if it met a busy file
  etxtbsy-trace replay trace.jsonl           look at what -o recorded, on any machine
  etxtbsy-trace check                        can this user trace on this kernel?

Exit status:
  run: CMD's own, 128+N if signal N killed it, 127 if it was not found, 126 if it cannot be run.
  Else 0. 125 if etxtbsy-trace itself failed, 2 for bad usage.";

const RUN_EXAMPLES: &str = "\
Examples:
  sudo etxtbsy-trace run make -j8 test
  sudo etxtbsy-trace run -o trace.jsonl -- sh -c './build && ./app'
  sudo etxtbsy-trace run --user ci --error-exitcode 9 -- ./ci.sh

Options for etxtbsy-trace come before CMD; all that follows CMD belongs to it.";

/// Says which process held the file open for writing when a program could not be executed: ETXTBSY,
/// "Text file busy".
///
/// Without a subcommand, watches the whole machine, or the process trees given with --pid.
#[derive(Clone, Debug, Parser)]
#[command(name = "etxtbsy-trace", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do; `None` is tracing the machine, or the trees of `pids`.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Only failures in the tree of PID: itself and all its descendants (repeatable)
    ///
    /// Those forked before tracing began are in the tree too. Tracing ends when the tree has ended.
    /// The filter is on the process whose call failed, unless --as says otherwise; the culprit may be
    /// any on the machine.
    #[arg(
        short,
        long = "pid",
        value_name = "PID",
        value_delimiter = ',',
        value_parser = pid
    )]
    pub pids: Vec<u32>,

    /// Options that every subcommand takes.
    #[command(flatten)]
    pub options: Options,
}

/// What to do instead of tracing the machine.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Start a command once tracing is live, trace it and all it starts, end with it
    Run(Run),
    /// Make the failures happen, each in a small known form, under the tracer
    Demo(Demo),
    /// Say what this kernel and this user can do, one line a fact
    ///
    /// Each failure comes with its remedy. The exit status is 0 only if tracing will work.
    Check,
    /// Show recorded JSON lines as if live, without root or eBPF
    Replay(Replay),
    /// Print the JSON Schema of the JSON lines
    Schema {
        /// Whose lines
        #[arg(value_enum, default_value_t)]
        of: Lines,
    },
}

/// JSON lines that have a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lines {
    /// Those of a trace
    #[default]
    Trace,
    /// Those of `check`
    Check,
}

/// `run`.
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "etxtbsy-trace run [OPTIONS] [--] CMD [ARG]...",
    after_help = RUN_EXAMPLES
)]
pub struct Run {
    /// Run CMD as USER, a name or a uid [default: under sudo, the user who called it]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Run CMD even if tracing cannot start; one line on stderr says why it could not
    #[arg(long)]
    pub best_effort: bool,

    /// When --stop-after or --duration has ended tracing, end CMD and its descendants with SIGTERM
    #[arg(long)]
    pub kill_after_stop: bool,

    /// The command, found in PATH unless it has a slash, and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub argv: Vec<OsString>,
}

/// `demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Which one [default: a tour of a few]
    #[arg(value_parser = PossibleValuesParser::new(demo::names()), hide_possible_values = true)]
    pub name: Option<String>,

    /// List them, with what each shows, and end
    #[arg(long, conflicts_with = "name")]
    pub list: bool,

    /// For the tests: how long races go, and each half of a comparison.
    #[arg(long, hide = true)]
    pub seconds: Option<u64>,
}

/// `replay`.
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// The file that --output or --json wrote (-: stdin)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Options that every subcommand takes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Write the JSON lines to FILE, whatever is shown on the terminal (-: stdout)
    #[arg(short, long, global = true, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// What is shown [default: tui on a terminal, else text; for `run` text on stderr, so that CMD
    /// keeps its stdin, stdout and terminal]
    #[arg(long, global = true, value_enum)]
    pub format: Option<Format>,

    /// Show the JSON lines on stdout; the same as --format json
    #[arg(long, global = true)]
    pub json: bool,

    /// Which failures, of the tree that --pid or `run` traces: those that it had, those that it caused
    /// by holding or running the file, or both
    #[arg(long = "as", global = true, value_name = "ROLE", value_enum, default_value_t)]
    pub role: TreeRole,

    /// End tracing after SECONDS; fractions are allowed; with `run`, CMD runs on
    #[arg(short, long, global = true, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    /// End tracing after N incidents; with `run`, CMD runs on
    #[arg(long, global = true, value_name = "N", value_parser = count)]
    pub stop_after: Option<NonZeroU64>,

    /// Exit with N (1 to 255) if CMD succeeded but at least one incident was seen that it did not repair itself
    #[arg(long, global = true, value_name = "N", value_parser = exit_code)]
    pub error_exitcode: Option<NonZeroU8>,

    /// When to colour; auto heeds the terminal, `NO_COLOR` and `CLICOLOR_FORCE`
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,

    /// Say more on stderr (repeat for more)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, as far as the environment agrees.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Cli {
    /// Reads a command line, the program's own name first.
    ///
    /// The error is for `clap::Error::exit`, which also prints the help and the version.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(args).map_err(with_run)?;
        match cli.conflict() {
            Some(message) => Err(Self::command().error(ErrorKind::ArgumentConflict, message)),
            None => Ok(cli),
        }
    }

    /// Options that exclude each other. Clap would not see those given on either side of a
    /// subcommand.
    fn conflict(&self) -> Option<String> {
        if let Some((option, subcommand)) = self.ignored() {
            return Some(format!("{option} has no effect with {subcommand}; leave it out"));
        }
        self.contradiction().map(ToOwned::to_owned)
    }

    /// The first option that would be ignored, and what ignores it.
    fn ignored(&self) -> Option<(&'static str, &'static str)> {
        let Options { output, format, json, role: _, duration, .. } = &self.options;
        let Options { stop_after, error_exitcode, color, verbose: _, .. } = &self.options;
        let given = |option: &'static str| match option {
            "--output" => output.is_some(),
            "--format" => format.is_some(),
            "--json" => *json,
            "--duration" => duration.is_some(),
            "--stop-after" => stop_after.is_some(),
            "--error-exitcode" => error_exitcode.is_some(),
            _ => *color != Color::Auto,
        };
        let (subcommand, ignores): (_, &[&'static str]) = match &self.command {
            None => ("no subcommand: only run has it", &["--error-exitcode"]),
            Some(Command::Run(_) | Command::Demo(Demo { list: false, .. })) => return None,
            Some(Command::Check) => ("check", &["--duration", "--stop-after", "--error-exitcode"]),
            Some(Command::Replay(_)) => ("replay", &["--duration", "--error-exitcode"]),
            Some(command @ (Command::Schema { .. } | Command::Demo(_))) => (
                if matches!(command, Command::Demo(_)) { "demo --list" } else { "schema" },
                &[
                    "--output",
                    "--format",
                    "--json",
                    "--duration",
                    "--stop-after",
                    "--error-exitcode",
                    "--color",
                ],
            ),
        };
        ignores.iter().find(|option| given(option)).map(|option| (*option, subcommand))
    }

    /// Options that contradict each other, or miss another.
    fn contradiction(&self) -> Option<&'static str> {
        let Options { output, format, json, role, duration, stop_after, .. } = &self.options;
        if !self.pids.is_empty() && self.command.is_some() {
            Some("--pid PID is for tracing without a subcommand; `run` traces the tree of CMD")
        } else if *role != TreeRole::Victim
            && self.pids.is_empty()
            && !matches!(self.command, Some(Command::Run(_)))
        {
            Some("--as ROLE is about a process tree: use it with --pid PID or with `run`")
        } else if *json && format.is_some() {
            Some("--json is the same as --format json: use one of --json and --format")
        } else if let Some(Command::Run(run)) = &self.command
            && run.kill_after_stop
            && duration.is_none()
            && stop_after.is_none()
        {
            Some("--kill-after-stop ends CMD after --stop-after N or --duration SECONDS: add one")
        } else if let Some(Command::Run(run)) = &self.command
            && run.best_effort
            && *format == Some(Format::Tui)
        {
            Some("--best-effort cannot be used with the view: use --format text or json")
        } else if *format == Some(Format::Tui) && output.as_deref().is_some_and(is_stdout) {
            Some("--output to stdout would write the JSON lines over the view; name a file")
        } else if self.format() == Format::Json && output.as_deref().is_some_and(is_stdout) {
            Some("--output to stdout would write the JSON lines there a second time; leave it out")
        } else {
            None
        }
    }

    pub(super) fn format(&self) -> Format {
        if self.options.json { Format::Json } else { self.options.format.unwrap_or(Format::Text) }
    }
}

/// Tells those who leave out `run` about it.
fn with_run(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::InvalidSubcommand
        && error.get(ContextKind::SuggestedSubcommand).is_none()
    {
        let tip = "to trace a command: etxtbsy-trace run [--] CMD [ARG]...";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds, such as 60 or 0.5")?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if duration > Duration::ZERO => Ok(duration),
        _ if number > 0.0 && number < 1.0 => Err("less than a nanosecond"),
        _ if number > 0.0 => Err("too long; leave it out for no limit"),
        _ => Err("must be more than 0"),
    }
}

fn pid(text: &str) -> Result<u32, &'static str> {
    let pid = text.parse().ok().filter(|pid| (1..=i32::MAX.cast_unsigned()).contains(pid));
    pid.ok_or("not a process id, which is a number from 1 on")
}

fn count(text: &str) -> Result<NonZeroU64, &'static str> {
    text.parse().map_err(|_| "not a number from 1 on")
}

fn exit_code(text: &str) -> Result<NonZeroU8, &'static str> {
    text.parse().map_err(|_| "not a number from 1 to 255")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(args: &[&str]) -> Result<Cli, clap::Error> {
        let all = ["etxtbsy-trace"].iter().chain(args);
        Cli::from_args(all.map(OsString::from))
    }

    fn refused(args: &[&str]) -> String {
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
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_is_the_machine() {
        let cli = cli(&[]).unwrap();
        assert!(cli.command.is_none());
        assert!(cli.pids.is_empty());
        assert_eq!(cli.options.color, Color::Auto);
    }

    #[test]
    fn pids_repeat() {
        assert_eq!(cli(&["-p", "1", "--pid", "22", "-p3,4"]).unwrap().pids, [1, 22, 3, 4]);
        for bad in ["0", "-1", "x", "2147483648", ""] {
            refused(&["--pid", bad]);
        }
    }

    #[test]
    fn a_role_is_one_in_a_tree() {
        let role = |args: &[&str]| cli(args).unwrap().options.role;
        assert_eq!(role(&["--pid", "1"]), TreeRole::Victim);
        assert_eq!(role(&["--pid", "1", "--as", "holder"]), TreeRole::Holder);
        assert_eq!(role(&["run", "--as", "either", "ls"]), TreeRole::Either);
        for bad in [&["--as", "holder"][..], &["check", "--as", "either"], &["-p1", "--as", "x"]] {
            refused(bad);
        }
    }

    #[test]
    fn all_that_follows_the_command_is_its_own() {
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
    fn options_before_the_command_are_ours() {
        let cli = cli(&["run", "--user", "ci", "--json", "-vv", "ls", "-v"]).unwrap();
        assert!(cli.options.json);
        assert_eq!(cli.options.verbose, 2);
        let Some(Command::Run(run)) = cli.command else { panic!() };
        assert_eq!(run.user.as_deref(), Some("ci"));
        assert_eq!(run.argv, ["ls", "-v"]);
        refused(&["run", "--bogus", "ls"]);
        refused(&["run"]);
        refused(&["run", "--"]);
        refused(&["--user", "ci"]);
    }

    #[test]
    fn global_options_stand_on_either_side() {
        for args in
            [["-o", "x", "--stop-after", "2", "demo"], ["demo", "-o", "x", "--stop-after", "2"]]
        {
            let options = cli(&args).unwrap().options;
            assert_eq!(options.output, Some(PathBuf::from("x")));
            assert_eq!(options.stop_after, NonZeroU64::new(2));
        }
    }

    #[test]
    fn durations_are_above_zero() {
        assert_eq!(
            cli(&["-d", "1.5"]).unwrap().options.duration,
            Some(Duration::from_millis(1500))
        );
        for bad in ["0", "-1", "nan", "inf", "1e300", "1s", "", "1e-12"] {
            refused(&["-d", bad]);
        }
    }

    #[test]
    fn numbers_have_their_ranges() {
        assert_eq!(
            cli(&["--error-exitcode", "255", "run", "ls"]).unwrap().options.error_exitcode,
            NonZeroU8::new(255)
        );
        for bad in [["--error-exitcode", "0"], ["--error-exitcode", "256"], ["--stop-after", "0"]] {
            refused(&bad);
        }
    }

    #[test]
    fn conflicts_are_refused_on_either_side_of_a_subcommand() {
        refused(&["--json", "--format", "text"]);
        refused(&["--json", "run", "--format", "text", "ls"]);
        refused(&["--pid", "1", "run", "ls"]);
        refused(&["--pid", "1", "check"]);
        refused(&["--json", "-o", "-"]);
        refused(&["--json", "-o", "/dev/stdout"]);
        refused(&["demo", "race", "--list"]);
    }

    #[test]
    fn options_without_effect_are_refused() {
        for (args, words) in [
            (&["schema", "-d", "3", "-o", "f"][..], "--output has no effect with schema"),
            (&["schema", "-d", "3"], "--duration has no effect with schema"),
            (&["schema", "--color", "always"], "--color"),
            (&["demo", "--list", "--json"], "--json has no effect with demo --list"),
            (&["--error-exitcode", "9"], "--error-exitcode has no effect with no subcommand"),
            (&["--error-exitcode", "9", "--pid", "1"], "--error-exitcode"),
            (&["check", "--error-exitcode", "9"], "--error-exitcode"),
            (&["check", "--stop-after", "1"], "--stop-after"),
            (&["replay", "f", "-d", "1"], "--duration has no effect with replay"),
            (&["run", "--kill-after-stop", "ls"], "add one"),
            (&["run", "--best-effort", "--format", "tui", "ls"], "--best-effort"),
        ] {
            let told = refused(args);
            assert!(told.contains(words), "{args:?}: {told}");
        }
        for args in [
            &["schema", "-v"][..],
            &["demo", "go22315", "-d", "3", "-o", "f"],
            &["check", "--json", "-o", "f"],
            &["replay", "f", "--stop-after", "1", "-o", "f"],
            &["run", "--kill-after-stop", "-d", "1", "ls"],
            &["run", "--kill-after-stop", "--stop-after", "1", "--error-exitcode", "1", "ls"],
            &["run", "--best-effort", "--json", "ls"],
        ] {
            cli(args).unwrap();
        }
    }

    #[test]
    fn messages_are_not_in_the_words_of_the_parser() {
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
            let told = refused(args);
            for word in ["digit", "float", "type", "argument '", "<", "zero"] {
                let error = told.split("\n\n").next().unwrap().replace("<PID>", "PID");
                let error = error.replace("<SECONDS>", "").replace("<N>", "");
                assert!(!error.contains(word), "{word:?} in: {error}");
            }
        }
    }

    #[test]
    fn lines_are_not_written_over_the_view() {
        assert!(refused(&["--format", "tui", "-o", "-"]).contains("over the view"));
        refused(&["replay"]);
    }

    #[test]
    fn a_forgotten_run_is_suggested() {
        assert!(refused(&["make", "-j8"]).contains("etxtbsy-trace run"));
        assert!(refused(&["chec"]).contains("'check'"));
    }
}
