//! Carries out effects: writes files and the clipboard.

use crate::{
    host::{owned_output, user::Invoker},
    text::shown,
    tui::model::{effect::Effect, export::Export, state::State},
};
use anyhow::Context as _;
use crossterm::{clipboard::CopyToClipboard, execute};
use jiff::Timestamp;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// The most exports within one second.
const NAMES: u32 = 1_000;

/// Carries out an effect; a file is created in `directory` as `owner`. Returns the notice.
pub(super) fn carry_out(
    effect: &Effect,
    state: &State,
    terminal: &mut impl Write,
    directory: &Path,
    owner: Option<&Invoker>,
) -> anyhow::Result<String> {
    match effect {
        Effect::Export(scope) => export(&Export::new(&state.model, *scope), directory, owner),
        Effect::Copy { what, text } => execute!(terminal, CopyToClipboard::to_clipboard_from(text))
            .context("cannot write to the terminal")
            .map(|()| format!("{what} sent to the terminal's clipboard (OSC 52)")),
    }
}

/// Writes to a new file.
fn export(export: &Export, directory: &Path, owner: Option<&Invoker>) -> anyhow::Result<String> {
    let (path, file) = owned_output::create_new(names(directory, Timestamp::now()), owner)?;
    let path = shown(path.as_os_str());
    export.write(file).with_context(|| format!("cannot write {path}"))?;
    Ok(format!("wrote {path}: {}", export.report()))
}

/// File names with the time, to the second, UTC.
fn names(directory: &Path, now: Timestamp) -> impl Iterator<Item = PathBuf> {
    let name = now.strftime("etxtbsy-trace-%Y%m%d-%H%M%S").to_string();
    let first = directory.join(format!("{name}.jsonl"));
    let directory = directory.to_owned();
    let others = (2..=NAMES).map(move |n| directory.join(format!("{name}-{n}.jsonl")));
    std::iter::once(first).chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{recording::Recording, samples};
    use crate::tui::model::export::Scope;
    use std::{fs, io::BufReader};

    /// Every sample.
    fn state() -> State {
        State::showing(samples::no_near_misses(), false)
    }

    /// The notice after an export to a directory.
    fn exported(directory: &Path) -> String {
        carry_out(&Effect::Export(Scope::All), &state(), &mut Vec::new(), directory, None)
            .unwrap_or_else(|error| format!("{error:#}"))
    }

    #[test]
    fn each_export_is_a_new_file_that_replay_reads() {
        let directory = tempfile::tempdir().unwrap();
        let said: Vec<String> = (0..3).map(|_| exported(directory.path())).collect();
        let files: Vec<PathBuf> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 3);
        for file in files {
            let place = format!("wrote {}: 6 incidents", file.display());
            assert!(said.contains(&place), "{said:?}");
            let file = BufReader::new(fs::File::open(file).unwrap());
            let mut recording = Recording::new("export", file);
            assert!(recording.all(|line| line.is_ok()));
        }
    }

    #[test]
    fn a_failed_export_gives_one_line_with_the_reason() {
        let said = exported(Path::new("/no/such\ndirectory"));
        assert!(said.starts_with(r#"cannot write "/no/such\ndirectory/"#), "{said}");
        assert!(said.contains("No such file or directory") && !said.contains('\n'), "{said}");
    }

    #[test]
    fn file_names_have_the_time() {
        let now = "2026-11-20T14:03:07.5Z".parse().unwrap();
        let names: Vec<PathBuf> = names(Path::new("here"), now).take(2).collect();
        let wanted =
            ["etxtbsy-trace-20261120-140307.jsonl", "etxtbsy-trace-20261120-140307-2.jsonl"];
        assert_eq!(names, wanted.map(|name| Path::new("here").join(name)));
    }

    #[test]
    fn a_copy_is_sent_to_the_terminal_as_base64() {
        let effect = Effect::Copy { what: "#12".to_owned(), text: "Text file busy\n".to_owned() };
        let mut terminal = Vec::new();
        let said = carry_out(&effect, &state(), &mut terminal, Path::new("."), None).unwrap();
        assert_eq!(said, "#12 sent to the terminal's clipboard (OSC 52)");
        assert_eq!(terminal, b"\x1b]52;c;VGV4dCBmaWxlIGJ1c3kK\x1b\\");
    }
}
