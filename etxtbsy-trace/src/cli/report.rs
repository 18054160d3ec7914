//! `report`: one report from any number of recordings.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use anyhow::{Context as _, bail};

use super::args::Report;
use crate::{
    host::{
        owned_output::{self, is_stdout},
        stdio,
        user::Invoker,
    },
    report::{formats::Format, merge},
};

/// Reads the recordings, and writes the report.
pub(super) fn run(args: &Report) -> anyhow::Result<u8> {
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let Format { name: format, is_binary, write, .. } = args.format();
    let path = args.output.as_deref().filter(|path| !is_stdout(path));
    if *is_binary && path.is_none() && io::stdout().is_terminal() {
        bail!("--format {format} is binary, and stdout is a terminal: write it to a file: -o FILE");
    }
    let document = merge::document(&args.files, &args.baseline, path)?;
    for note in document.notes() {
        writeln!(io::stderr(), "etxtbsy-trace: {note}").context("cannot write to stderr")?;
    }
    let (out, name): (Box<dyn Write>, _) = match path {
        Some(path) => {
            let file = owned_output::create(path, Invoker::of_sudo()?.as_ref())?;
            (Box::new(file), path.to_string_lossy().into_owned())
        }
        None => (Box::new(io::stdout().lock()), "stdout".to_owned()),
    };
    let mut out = BufWriter::new(out);
    write(&document, &mut out)
        .and_then(|()| out.flush())
        .with_context(|| format!("cannot write to {name}"))?;
    Ok(0)
}
