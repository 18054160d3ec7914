//! `demo`: makes failures happen under the tracer.

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::{
    args::{Cli, Demo},
    presentation::{Presentation, Stream},
    streams::present,
    trace::{TracedCommand, trace},
};
use crate::{
    demo::{self, Demonstration},
    host::identity,
    output::formats::Format,
};

/// Lists the demos, or runs one, or the tour.
pub(super) fn run(cli: &Cli, args: &Demo) -> anyhow::Result<u8> {
    if args.list {
        demo::list(&mut io::stdout()).context("cannot write to stdout")?;
        return Ok(0);
    }
    trace_demo(cli, args)
}

/// Runs a demo, or the tour.
fn trace_demo(cli: &Cli, Demo { name, seconds, .. }: &Demo) -> anyhow::Result<u8> {
    let name = name.as_deref();
    if let Some(missing) = demo::missing(name) {
        writeln!(io::stderr(), "etxtbsy-trace: {missing}").context("cannot write to stderr")?;
        return Ok(0);
    }
    let demo = Demonstration::new(name, *seconds)?;
    let user = identity::for_command(None)?;
    let command = TracedCommand {
        argv: demo.argv(),
        user: user.as_ref(),
        best_effort: false,
        kill_after_stop: false,
        provocation: None,
    };
    let code = trace(cli, Some(command), Some(demo.sink()))?;
    let Presentation { format, stream, .. } = present(cli);
    match (format, stream) {
        (Format::Text, Stream::Stdout) => demo.conclude(&mut io::stdout())?,
        _ => demo.conclude(&mut io::stderr())?,
    }
    Ok(code)
}
