//! The tracer's own streams, and the sinks that write to them.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use anyhow::{Context as _, bail};

use super::{
    args::{Cli, FileOptions},
    presentation::{Presentation, Stream, presentation},
};
use crate::{
    host::{
        owned_output::{self, OutputFile, is_stdout},
        stdio,
        user::Invoker,
    },
    output::{Output, json::Json, recording_file::RecordingFile, text::Text},
    session::Sink,
    text::{escape, shown},
    tui::{model::state::State, terminal::deferred_text::DeferredText},
};

/// Selects the output for this process's streams.
pub(super) fn present(cli: &Cli) -> Presentation {
    presentation(cli, io::stdout().is_terminal(), io::stderr().is_terminal(), |name| {
        std::env::var_os(name)
    })
}

/// An empty view.
pub(super) fn state(Presentation { color, ascii, .. }: Presentation) -> State {
    let mut state = State::new(color);
    state.ascii = ascii;
    state
}

/// The sinks besides the view. With `after_view`, the summary waits there until the view has closed.
pub(super) fn sinks(
    cli: &Cli,
    owner: Option<&Invoker>,
    after_view: Option<&DeferredText>,
) -> anyhow::Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    if let Some(path) = &cli.options.output {
        sinks.push(file_sink(cli, path, owner)?);
    }
    let Presentation { format, stream, color, .. } = present(cli);
    // Not io::stdout: a thread that waits for a reader may hold its lock.
    let name = stream_name(stream);
    let writer = duplicate(stream)?;
    let verbose = cli.options.verbose > 0;
    if let Some(output) = format.open(writer, color, verbose) {
        sinks.push(Sink::new(name.to_owned(), output));
    } else if let Some(held) = after_view {
        let text = Text::new(held.clone(), color, verbose);
        sinks.push(Sink::direct(name, text.summary_only()));
    }
    Ok(sinks)
}

/// The sink of `--output`.
fn file_sink(cli: &Cli, path: &Path, owner: Option<&Invoker>) -> anyhow::Result<Sink> {
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
    Ok(Sink::new(name, output))
}

/// Whether a session may have to create the file of `--output` again: to rotate it, or as a service that
/// gets SIGHUP.
pub(super) fn recreates_file(cli: &Cli, has_command: bool) -> bool {
    let is_service = !has_command && !stdio::has_terminal();
    cli.options.output.is_some() && (cli.options.file.rotate.is_some() || is_service)
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
