//! The command line.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use etxtbsy_trace::{
    check::{self, Work},
    cli::{Cli, Command, Demo, Format, Presentation, Replay, Stream, is_stdout, presentation},
    command::{ExecError, Prepared},
    demo::{self, Demonstration},
    kernel::{
        memlock, nofile,
        tracer::{Options, Tracer},
    },
    lines::{Filter, Line},
    memory::{FAILED_TO_TRACE, Memory},
    output::{self, Output, escape, json::Json, text::Text},
    output_file,
    replay::Recording,
    rights, schema,
    session::{Ended, Limits, Sink},
    stdio,
    trace::{self, Job, Outcome},
    tree,
    tui::{
        command_output::Streams,
        feed::{End, Feed},
        held::Held,
        state::State,
        terminal::{self, Signals},
        view,
    },
    user::{self, Invoker},
    workload::Workload,
};
use nix::{sys::signal::Signal, unistd::dup2_stdout};
use tokio::sync::Notify;

/// Undocumented: a size for the ring buffer, by which the tests make it overflow.
const RING_BYTES: &str = "ETXTBSY_TRACE_RING_BYTES";

#[global_allocator]
static MEMORY: Memory = Memory;

/// `workload`, which the demos and tests run, and nobody else.
#[derive(clap::Parser)]
#[command(name = "etxtbsy-trace workload")]
struct WorkloadCli {
    /// Write the report to FILE instead of stdout.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(subcommand)]
    workload: Workload,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let own = args.next().unwrap_or_default();
    if args.next().is_some_and(|word| word == "workload") {
        return finish(workload(WorkloadCli::parse_from([own].into_iter().chain(args))));
    }
    let cli = match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let level = match cli.options.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    let mut logger = env_logger::Builder::new();
    logger.filter(Some("etxtbsy_trace"), level);
    let held = Held::default();
    if present(&cli).format == Format::Tui {
        logger.target(env_logger::Target::Pipe(Box::new(held.clone())));
    } else {
        logger.target(env_logger::Target::Pipe(Box::new(stdio::Log)));
    }
    logger.init();
    let result = dispatch(&cli);
    // Nothing is left to say it to, if stderr is closed.
    let _ = held.let_go(io::stderr());
    finish(result)
}

/// Runs a workload.
fn workload(WorkloadCli { report, workload }: WorkloadCli) -> anyhow::Result<u8> {
    if let Some(path) = report {
        let file = File::options().write(true).open(&path).context("cannot open --report")?;
        dup2_stdout(file).context("cannot make --report stdout")?;
    }
    workload.run()
}

/// Turns a result into an exit status, and an error into one line.
fn finish(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_unread_stdout(&error) => stdio::die_of(Signal::SIGPIPE),
        Err(error) => {
            let code = match error.downcast_ref::<ExecError>() {
                Some(error) => error.exit_code(),
                None => FAILED_TO_TRACE,
            };
            say(&format!("{error:#}"));
            ExitCode::from(code)
        }
    }
}

/// Whether nobody reads stdout any more, as with `| head -1`.
fn is_unread_stdout(error: &anyhow::Error) -> bool {
    let has_gone = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(has_gone) && stdio::is_unread(io::stdout().as_fd())
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    match &cli.command {
        None => trace(cli, None, None),
        Some(Command::Run(run)) => {
            let user = user::for_command(run.user.as_deref())?;
            let user = user.as_ref();
            let to_stdout = cli.options.output.as_deref().is_some_and(is_stdout);
            if to_stdout || present(cli).format == Format::Json {
                log::warn!("CMD has the same stdout as the JSON lines; -o FILE keeps them apart");
            }
            let (best_effort, ends) = (run.best_effort, run.kill_after_stop);
            trace(cli, Some(ToRun { argv: &run.argv, user, best_effort, ends }), None)
        }
        Some(Command::Demo(Demo { list: true, .. })) => {
            demo::list(&mut io::stdout()).context("cannot write to stdout")?;
            Ok(0)
        }
        Some(Command::Demo(args)) => demo(cli, args),
        Some(Command::Check) => check(cli),
        Some(Command::Replay(args)) => replay(cli, args),
        Some(Command::Schema { of }) => {
            let mut out = io::stdout();
            let schema = serde_json::to_string_pretty(&schema::schema(*of))?;
            writeln!(out, "{schema}").context("cannot write to stdout")?;
            Ok(0)
        }
    }
}

/// Says what this kernel and this user can do.
fn check(cli: &Cli) -> anyhow::Result<u8> {
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let Presentation { format, stream, color, .. } = present(cli);
    let owner = Invoker::of_sudo()?;
    let file = cli.options.output.as_deref().map(|path| output_file::create(path, owner.as_ref()));
    let mut file = file.transpose()?.map(Json::new);
    let (name, mut out): (_, Box<dyn io::Write>) = match stream {
        Stream::Stdout => ("stdout", Box::new(io::stdout())),
        Stream::Stderr => ("stderr", Box::new(io::stderr())),
    };
    let works = check::report(|line| {
        if let Some(file) = &mut file {
            file.write(line).context("cannot write to the file of --output")?;
        }
        match format {
            Format::Json => Json::new(&mut out).write(line),
            Format::Text | Format::Tui => {
                out.write_all(output::check::text(line, color).as_bytes())
            }
        }
        .with_context(|| format!("cannot write to {name}"))
    })?;
    Ok(u8::from(!works))
}

/// Shows a demo, or the tour.
fn demo(cli: &Cli, Demo { name, seconds, .. }: &Demo) -> anyhow::Result<u8> {
    let name = name.as_deref();
    if let Some(missing) = demo::missing(name) {
        writeln!(io::stderr(), "etxtbsy-trace: {missing}").context("cannot write to stderr")?;
        return Ok(0);
    }
    let demo = Demonstration::new(name, *seconds)?;
    let user = user::for_command(None)?;
    let command = ToRun { argv: demo.argv(), user: user.as_ref(), best_effort: false, ends: false };
    let code = trace(cli, Some(command), Some(demo.sink()))?;
    let Presentation { format, stream, .. } = present(cli);
    match (format, stream) {
        (Format::Text, Stream::Stdout) => demo.conclude(&mut io::stdout())?,
        _ => demo.conclude(&mut io::stderr())?,
    }
    Ok(code)
}

/// Shows a recording.
fn replay(cli: &Cli, Replay { file }: &Replay) -> anyhow::Result<u8> {
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let mut recording = Recording::open(file, cli.options.output.as_deref())?;
    let presentation = present(cli);
    let format = presentation.format;
    if format == Format::Tui {
        terminal::is_there()?;
    }
    let mut sinks = sinks(cli, Invoker::of_sudo()?.as_ref(), None)?;
    let mut seen = |line: &Line| -> anyhow::Result<()> {
        for Sink { name, output, .. } in &mut sinks {
            output.line(line).with_context(|| format!("cannot write to {name}"))?;
        }
        Ok(())
    };
    let wanted = cli.options.stop_after.map_or(u64::MAX, u64::from);
    if format == Format::Tui {
        let source = move |feed: Feed| {
            recording.feed(wanted, |line| Ok(feed.line(line)))?;
            let notes = recording.notes();
            Ok(End::stay(match notes.as_slice() {
                [] => "end of the recording".to_owned(),
                notes => notes.join("; "),
            }))
        };
        terminal::show(state(presentation), Signals::View, source, seen)?;
        return Ok(0);
    }
    recording.feed(wanted, |line| seen(&line).map(|()| true))?;
    for note in recording.notes() {
        writeln!(io::stderr(), "etxtbsy-trace: {note}").context("cannot write to stderr")?;
    }
    Ok(0)
}

/// A command to trace.
#[derive(Clone, Copy)]
struct ToRun<'a> {
    argv: &'a [OsString],
    /// Whom to run it as, if not as ourselves.
    user: Option<&'a Invoker>,
    /// Whether it runs even if tracing cannot start.
    best_effort: bool,
    /// Whether it is ended when a limit has ended tracing.
    ends: bool,
}

/// Traces the machine, some trees, or a command; lines go to one `more` sink, too.
fn trace(cli: &Cli, command: Option<ToRun<'_>>, more: Option<Sink>) -> anyhow::Result<u8> {
    let presentation = present(cli);
    let in_view = presentation.format == Format::Tui;
    let sudo_user = Invoker::of_sudo()?;
    if in_view {
        terminal::is_there()?;
    }
    let streams = (in_view && command.is_some()).then(Streams::new).transpose()?;
    let replaced = streams.as_ref().map(Streams::replace).unwrap_or_default();
    // Before anything is opened or changed that it would inherit.
    let prepared =
        command.map(|ToRun { argv, user, .. }| Prepared::new(argv, user, &replaced)).transpose()?;
    let after_view = Held::default();
    // From here on; the command has it as it was.
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let sinks = || sinks(cli, sudo_user.as_ref(), Some(&after_view));
    let begun = begin(
        cli,
        command.map(|command| command.argv),
        prepared.as_ref(),
        sinks,
        Work {
            command: prepared.is_some(),
            view: in_view,
            sudo: sudo_user.is_some(),
            loads: false,
        },
    );
    let (tracer, filter, mut sinks) = match (begun, prepared.is_some()) {
        (Err(error), true) if command.is_some_and(|command| command.best_effort) => {
            say(&format!("not tracing, CMD runs all the same (--best-effort): {error:#}"));
            return untraced(prepared);
        }
        (begun, _) => begun?,
    };
    sinks.extend(more);
    let limits =
        Limits { duration: cli.options.duration, incidents: cli.options.stop_after.map(u64::from) };
    let ends_command = command.is_some_and(|command| command.ends);
    let job = Job { tracer, filter, sinks, prepared, limits, ends_command };
    let Outcome { code, interrupted, traced } = if in_view {
        let outcome = job.run_in_view(state(presentation), streams);
        match presentation.stream {
            Stream::Stdout => after_view.let_go(io::stdout()).context("cannot write to stdout")?,
            Stream::Stderr => after_view.let_go(io::stderr()).context("cannot write to stderr")?,
        }
        outcome?
    } else {
        job.run(&Notify::new(), say)?
    };
    if interrupted && !in_view {
        stdio::die_of(Signal::SIGINT);
    }
    let Ended { summary, unread, stalled } = traced;
    if let Some(stalled) = &stalled {
        say(stalled);
    }
    if code.is_none() && unread {
        stdio::die_of(Signal::SIGPIPE);
    }
    if code.is_none() && stalled.is_some() {
        return Ok(FAILED_TO_TRACE);
    }
    Ok(match (code, cli.options.error_exitcode) {
        (Some(0), Some(error)) if summary.incidents > summary.repaired => error.get(),
        (code, _) => code.unwrap_or(0),
    })
}

/// Makes tracing live, and gives up what it needs no more.
fn begin(
    cli: &Cli,
    argv: Option<&[OsString]>,
    prepared: Option<&Prepared>,
    sinks: impl FnOnce() -> anyhow::Result<Vec<Sink>>,
    work: Work,
) -> anyhow::Result<(Tracer, Filter, Vec<Sink>)> {
    check::start()?;
    let roots =
        cli.pids.iter().map(|pid| tree::existing(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let sinks = sinks()?;
    // Maps count against it up to 5.10; where raising is forbidden, loading says whether it matters.
    if let Err(errno) = memlock::lift() {
        log::info!("cannot raise RLIMIT_MEMLOCK: {errno}");
    }
    if let Err(errno) = nofile::raise() {
        log::info!("cannot raise RLIMIT_NOFILE: {errno}");
    }
    let tracked = match prepared {
        Some(prepared) => Some(vec![prepared.pid()]),
        None => (!roots.is_empty()).then(|| roots.clone()),
    };
    let ring_bytes = std::env::var(RING_BYTES).ok().and_then(|bytes| bytes.parse().ok());
    let options = Options {
        roots: tracked,
        role: cli.options.role,
        ring_bytes,
        verbose: cli.options.verbose > 0,
    };
    let mut tracer = Tracer::start(&options).map_err(check::explain)?;
    // What reading the kernel's BTF took is of no use any more.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) gives free memory back, and touches no other.
    unsafe {
        libc::malloc_trim(0);
    }
    if !roots.is_empty() {
        tree::add_descendants(&mut tracer)?;
    }
    let work = Work { loads: tracer.may_load(), ..work };
    rights::give_up(work, || tracer.reads_maps())?;
    let filter = Filter {
        pids: roots,
        command: argv
            .map(|argv| argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()),
        role: cli.options.role,
    };
    Ok((tracer, filter, sinks))
}

/// Runs the command, for which there is no tracing; its exit status.
fn untraced(prepared: Option<Prepared>) -> anyhow::Result<u8> {
    let Some(prepared) = prepared else { return Ok(FAILED_TO_TRACE) };
    let (code, interrupted) = trace::untraced(prepared)?;
    if interrupted {
        stdio::die_of(Signal::SIGINT);
    }
    Ok(code)
}

/// Writes a line to stderr, unless nobody reads that.
fn say(text: &str) {
    stdio::say(&format!("etxtbsy-trace: {}", escape::prose(text)));
}

/// An empty view.
fn state(Presentation { color, ascii, .. }: Presentation) -> State {
    let mut state = State::new(view::COUNT, color);
    state.ascii = ascii;
    state
}

/// What is shown, where, and how, on the streams that we have.
fn present(cli: &Cli) -> Presentation {
    presentation(cli, io::stdout().is_terminal(), io::stderr().is_terminal(), |name| {
        std::env::var_os(name)
    })
}

/// Where the lines go, besides the view; what is said when it has gone is held.
fn sinks(
    cli: &Cli,
    owner: Option<&Invoker>,
    after_view: Option<&Held>,
) -> anyhow::Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    if let Some(path) = &cli.options.output {
        let file = output_file::create(path, owner)?;
        let name =
            if is_stdout(path) { "stdout".to_owned() } else { path.to_string_lossy().into_owned() };
        sinks.push(Sink::new(name, Box::new(Json::new(file))));
    }
    let Presentation { format, stream, color, .. } = present(cli);
    // Not by the standard library's, whose lock a thread may hold that waits for a reader.
    let name = stream_name(stream);
    let writer = own(stream)?;
    let output: Box<dyn Output> = match format {
        Format::Json => Box::new(Json::new(writer)),
        Format::Text => Box::new(Text::new(writer, color, cli.options.verbose > 0)),
        Format::Tui => {
            let Some(held) = after_view else { return Ok(sinks) };
            let text = Text::new(held.clone(), color, cli.options.verbose > 0);
            sinks.push(Sink::direct(name, text.only_the_end()));
            return Ok(sinks);
        }
    };
    sinks.push(Sink::new(name.to_owned(), output));
    Ok(sinks)
}

/// What a stream of ours is called.
fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// A stream of ours, by an fd of its own.
fn own(stream: Stream) -> anyhow::Result<File> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let fd: BorrowedFd<'_> = match stream {
        Stream::Stdout => stdout.as_fd(),
        Stream::Stderr => stderr.as_fd(),
    };
    let name = stream_name(stream);
    let fd = fd.try_clone_to_owned().with_context(|| format!("cannot write to {name}"))?;
    Ok(fd.into())
}
