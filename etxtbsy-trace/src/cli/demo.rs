//! `demo`: makes failures happen under the tracer.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::{
    args::{Cli, Demo},
    presentation::{Presentation, Stream},
    streams::present,
    trace::{TracedCommand, trace},
};
use crate::{
    demo::{self, Demonstration},
    host::{identity, memory::FAILED_TO_TRACE},
    output::formats::Format,
    text::escape,
};

/// How long each hunt of the demo lasts.
const HUNT_SECONDS: u64 = 5;

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
    if demo::hunts(name) {
        return hunt_demo(cli, *seconds);
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
    let code = trace(cli, Some(command), Some(demo.sink()), Some(demo.caption(name)?))?;
    let Presentation { format, stream, .. } = present(cli);
    match (format, stream) {
        (Format::Text, Stream::Stdout) => demo.conclude(&mut io::stdout())?,
        _ => demo.conclude(&mut io::stderr())?,
    }
    Ok(code)
}

/// Hunts for a race, before and after its fix, with commands that a user could type.
fn hunt_demo(cli: &Cli, seconds: Option<u64>) -> anyhow::Result<u8> {
    let Presentation { format, .. } = present(cli);
    if format.is_for_programs() || cli.options.output.is_some() {
        bail!("demo hunt prints text only: leave out --json, --format and -o");
    }
    let this = env::current_exe().context("cannot find the executable of this program")?;
    let dir = tempfile::tempdir().context("cannot create a directory for the demo")?;
    let before = dir.path().join("before.jsonl");
    let seconds = seconds.unwrap_or(HUNT_SECONDS).to_string();
    let hunt = ["hunt", "--provoke", "--for", &seconds];
    let race = ["workload", "go22315", "--threads", "8", "--seconds", "1"];
    let fixed = ["workload", "remedy", "write-in-child", "--alone", "--seconds", "1"];
    for (option, race) in [("--output", &race[..]), ("--baseline", &fixed[..])] {
        let mut words: Vec<OsString> = hunt.iter().map(Into::into).collect();
        words.extend([option.into(), before.clone().into(), "--".into(), this.clone().into()]);
        words.extend(race.iter().map(Into::into));
        let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        writeln!(io::stdout(), "\n$ etxtbsy-trace {}", escape::command(&shown, usize::MAX))
            .context("cannot write to stdout")?;
        let status = Command::new(&this).args(&words).status().context("cannot run the hunt")?;
        match status.code() {
            Some(0 | 1) => {}
            Some(code) => return Ok(u8::try_from(code).unwrap_or(FAILED_TO_TRACE)),
            None => return Ok(FAILED_TO_TRACE),
        }
    }
    Ok(0)
}
