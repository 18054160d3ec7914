//! Our own streams: what is shown on which of them, and where the lines go.

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
        identity::Invoker,
        owned_output::{self, is_stdout},
        stdio,
    },
    output::{json::Json, text::Text},
    session::Sink,
    text::escape,
    tui::{model::state::State, terminal::held::DeferredText},
};

/// What is shown, where, and how, on the streams that we have.
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

/// Where the lines go, besides the view; what is said when it has gone is held.
pub(super) fn sinks(
    cli: &Cli,
    owner: Option<&Invoker>,
    after_view: Option<&DeferredText>,
) -> anyhow::Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    if let Some(path) = &cli.options.output {
        let file = owned_output::create(path, owner)?;
        let name =
            if is_stdout(path) { "stdout".to_owned() } else { path.to_string_lossy().into_owned() };
        sinks.push(Sink::new(name, Box::new(Json::new(file))));
    }
    let Presentation { format, stream, color, .. } = present(cli);
    // Not by the standard library's, whose lock a thread may hold that waits for a reader.
    let name = stream_name(stream);
    let writer = own(stream)?;
    let verbose = cli.options.verbose > 0;
    if let Some(output) = format.open(writer, color, verbose) {
        sinks.push(Sink::new(name.to_owned(), output));
    } else if let Some(held) = after_view {
        let text = Text::new(held.clone(), color, verbose);
        sinks.push(Sink::direct(name, text.summary_only()));
    }
    Ok(sinks)
}

/// What a stream of ours is called.
pub(super) fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// A stream of ours, by an fd of its own.
pub(super) fn own(stream: Stream) -> anyhow::Result<File> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let fd: BorrowedFd<'_> = match stream {
        Stream::Stdout => stdout.as_fd(),
        Stream::Stderr => stderr.as_fd(),
    };
    let name = stream_name(stream);
    let fd = fd.try_clone_to_owned().with_context(|| format!("cannot write to {name}"))?;
    Ok(fd.into())
}

/// Writes a line to stderr, unless nobody reads that.
pub(super) fn say(text: &str) {
    stdio::say(&format!("etxtbsy-trace: {}", escape::prose(text)));
}
