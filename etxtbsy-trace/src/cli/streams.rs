//! The tracer's own streams, and the sinks that write to them.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Context as _, bail};
use nix::unistd::Uid;
use rustix::termios::tcgetwinsize;

use super::{
    args::{Cli, Command, FileOptions, Replay},
    presentation::{Presentation, Stream, presentation},
};
use crate::{
    host::{
        owned_output::{self, OutputFile, is_stdout},
        stdio, sudo,
        user::Invoker,
    },
    output::{
        Output,
        json::Json,
        look::{Look, Style},
        recording_file::RecordingFile,
        text::Text,
    },
    session::Sink,
    text::{
        escape::{self, Charset},
        shown,
    },
    tui::{model::state::State, terminal::deferred_text::DeferredText},
};

/// Selects the output for this process's streams.
pub(super) fn present(cli: &Cli) -> Presentation {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let found = presentation(cli, stdout.is_terminal(), stderr.is_terminal(), |name| {
        let taken_by_sudo = ["COLUMNS", "GITHUB_ACTIONS"].contains(&name);
        std::env::var_os(name).or_else(|| taken_by_sudo.then(|| before_sudo(name)).flatten())
    });
    let size = match found.stream {
        Stream::Stdout => tcgetwinsize(stdout),
        Stream::Stderr => tcgetwinsize(stderr),
    };
    let width = size.ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
    Presentation { columns: found.columns.or(width), ..found }
}

/// A variable that sudo took away, as its caller had it.
fn before_sudo(name: &str) -> Option<OsString> {
    let uid = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    let change = sudo::Change::find(Uid::from_raw(uid)).ok()?;
    change.before(name).map(ToOwned::to_owned)
}

/// An empty view.
pub(super) fn state(cli: &Cli, Presentation { color, ascii, .. }: Presentation) -> State {
    let mut state = State::new(color);
    state.ascii = ascii;
    state.mouse = !cli.options.no_mouse;
    state.is_saved = match &cli.command {
        // A demo can be shown again.
        Some(Command::Demo(_)) => true,
        Some(Command::Replay(Replay { file })) => file.as_os_str() != "-",
        _ => false,
    } || cli.options.output.is_some();
    state
}

/// The sinks besides the view. With `after_view`, the summary waits there until the view has closed.
pub(super) fn sinks(
    cli: &Cli,
    owner: Option<&Invoker>,
    after_view: Option<&DeferredText>,
) -> anyhow::Result<Vec<Sink>> {
    let mut sinks = Vec::from_iter(file_sink(cli, owner)?);
    let presentation = present(cli);
    let Presentation { format, stream, .. } = presentation;
    // Not io::stdout: a thread that waits for a reader may hold its lock.
    let name = stream_name(stream);
    let writer = duplicate(stream)?;
    let style = style(cli, presentation);
    if let Some(output) = format.open(writer, style) {
        sinks.push(Sink::new(name.to_owned(), output));
    } else if let Some(held) = after_view {
        let text = Text::new(held.clone(), Style { summary_only: true, ..style });
        sinks.push(Sink::direct(name, text));
    }
    Ok(sinks)
}

/// The sink of `--output`.
pub(super) fn file_sink(cli: &Cli, owner: Option<&Invoker>) -> anyhow::Result<Option<Sink>> {
    let Some(path) = &cli.options.output else { return Ok(None) };
    let FileOptions { rotate, .. } = cli.options.file;
    let OutputFile { file, place } = owned_output::open(path, owner, cli.options.file.content())?;
    let name =
        if is_stdout(path) { "stdout".to_owned() } else { path.to_string_lossy().into_owned() };
    let output: Box<dyn Output> = match place {
        Some(place) => {
            let file = RecordingFile::new(path, owner, file, place, rotate);
            Box::new(file.with_context(|| format!("cannot write to {name}"))?)
        }
        None if rotate.is_some() => {
            bail!("--rotate needs a regular file, which {} is not", shown(path.as_os_str()))
        }
        None => Box::new(Json::new(file)),
    };
    Ok(Some(Sink::new(name, output)))
}

/// Whether a session may have to create the file of `--output` again: to rotate it, or as a service that
/// gets SIGHUP.
pub(super) fn recreates_file(cli: &Cli, has_command: bool) -> bool {
    let is_service = !has_command && !stdio::has_terminal();
    cli.options.output.is_some() && (cli.options.file.rotate.is_some() || is_service)
}

/// What the text output writes, and how.
fn style(cli: &Cli, presentation: Presentation) -> Style {
    let Presentation { color, ascii, columns, log_groups, .. } = presentation;
    let charset = if ascii { Charset::Ascii } else { Charset::Unicode };
    let look = Look { color, verbose: cli.options.verbose > 0, charset, columns };
    Style { look, summary_only: cli.options.summary_only, log_groups }
}

/// The name of a stream, for messages.
fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// A file with an fd of its own for that stream.
fn duplicate(stream: Stream) -> anyhow::Result<File> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let fd: BorrowedFd<'_> = match stream {
        Stream::Stdout => stdout.as_fd(),
        Stream::Stderr => stderr.as_fd(),
    };
    let name = stream_name(stream);
    let fd = fd.try_clone_to_owned().with_context(|| format!("cannot write to {name}"))?;
    Ok(fd.into())
}

/// Writes a line to stderr; a missing reader is no error.
pub(super) fn say(text: &str) {
    stdio::say(&format!("etxtbsy-trace: {}", escape::prose(text)));
}
