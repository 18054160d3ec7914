//! `replay`: shows a recording as if it were live.

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::{
    args::{Cli, Replay},
    streams::{present, sinks, state},
};
use crate::{
    event::Line,
    host::{stdio, user::Invoker},
    output::formats::Format,
    output::recording::Recording,
    session::Sink,
    tui::{
        feed::{End, Feed},
        terminal::{self, SignalOwner, deferred_text::DeferredText},
    },
};

/// Shows the recording in that file.
pub(super) fn run(cli: &Cli, Replay { file }: &Replay) -> anyhow::Result<u8> {
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let mut recording = Recording::open(file, cli.options.output.as_deref())?;
    let presentation = present(cli);
    let format = presentation.format;
    if format == Format::Tui {
        terminal::is_there()?;
    }
    let after_view = DeferredText::default();
    let mut sinks = sinks(cli, Invoker::of_sudo()?.as_ref(), Some(&after_view))?;
    let mut write_to_sinks = |line: &Line| -> anyhow::Result<()> {
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
        terminal::show(state(cli, presentation), SignalOwner::View, source, write_to_sinks)?;
        for Sink { name, output, .. } in &mut sinks {
            output.end().with_context(|| format!("cannot write to {name}"))?;
        }
        // Replaying to stdout has no view.
        after_view.write_to(io::stdout()).context("cannot write to stdout")?;
        return Ok(0);
    }
    let read = recording.feed(wanted, |line| write_to_sinks(&line).map(|()| true));
    for Sink { name, output, .. } in &mut sinks {
        output.end().with_context(|| format!("cannot write to {name}"))?;
    }
    read?;
    for note in recording.notes() {
        writeln!(io::stderr(), "etxtbsy-trace: {note}").context("cannot write to stderr")?;
    }
    Ok(0)
}
