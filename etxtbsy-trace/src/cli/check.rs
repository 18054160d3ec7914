//! `check`: reports whether this kernel and user can run the tracer.

use std::io;

use anyhow::Context as _;

use super::{
    args::Cli,
    presentation::{Presentation, Stream},
    streams::present,
};
use crate::{
    check,
    host::{owned_output, stdio, user::Invoker},
    output::formats::Format,
    output::{self, json::Json},
};

/// Reports each fact; the exit status is 0 if tracing will work.
pub(super) fn run(cli: &Cli) -> anyhow::Result<u8> {
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let Presentation { format, stream, color, .. } = present(cli);
    let owner = Invoker::of_sudo()?;
    let content = cli.options.file.content();
    let path = cli.options.output.as_deref();
    let file = path.map(|path| owned_output::open(path, owner.as_ref(), content)).transpose()?;
    let mut file = file.map(|opened| Json::new(opened.file));
    let (name, mut out): (_, Box<dyn io::Write>) = match stream {
        Stream::Stdout => ("stdout", Box::new(io::stdout())),
        Stream::Stderr => ("stderr", Box::new(io::stderr())),
    };
    let works = check::report(|line| {
        if let Some(file) = &mut file {
            file.write(line).context("cannot write to the file given with --output")?;
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
