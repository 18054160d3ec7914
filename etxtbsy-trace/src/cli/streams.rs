//! The tracer's own streams, and the sinks that write to them.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Context as _;

use super::{
    args::Cli,
    presentation::{Presentation, Stream, presentation},
};
use crate::{
    host::{
        owned_output::{self, is_stdout},
        stdio,
        user::Invoker,
    },
    output::{json::Json, text::Text},
    session::Sink,
    text::escape,
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
    let mut sinks = Vec::from_iter(file_sink(cli, owner)?);
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

/// The sink for `--output`.
pub(super) fn file_sink(cli: &Cli, owner: Option<&Invoker>) -> anyhow::Result<Option<Sink>> {
    let Some(path) = &cli.options.output else { return Ok(None) };
    let file = owned_output::create(path, owner)?;
    let name =
        if is_stdout(path) { "stdout".to_owned() } else { path.to_string_lossy().into_owned() };
    Ok(Some(Sink::new(name, Box::new(Json::new(file)))))
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
