//! Selects output format, stream and colours from the options, the environment and the streams.

use std::ffi::OsString;

use super::args::{Cli, Color, Command};
use crate::{host::owned_output::is_stdout, output::formats::Format};

/// A stream that output can go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Fd 1.
    Stdout,
    /// Fd 2.
    Stderr,
}

/// The output that was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presentation {
    /// The format.
    pub format: Format,
    /// The stream that the format is written to.
    pub stream: Stream,
    /// Whether to use colours.
    pub color: bool,
    /// Whether the locale has only ASCII.
    pub ascii: bool,
    /// The width at which text wraps, if there is one.
    pub columns: Option<usize>,
    /// Whether text is for the log of GitHub Actions, which has groups.
    pub log_groups: bool,
}

/// Selects the output.
///
/// `env` looks up environment variables. JSON goes to stdout; with `run`, CMD has the same stdout.
/// Text goes to stderr if CMD or the JSON lines of `--output -` use stdout.
pub fn presentation(
    cli: &Cli,
    stdout_is_tty: bool,
    stderr_is_tty: bool,
    env: impl Fn(&str) -> Option<OsString>,
) -> Presentation {
    let dumb = env("TERM").is_some_and(|term| term == "dumb");
    let to_stdout = cli.options.output.as_deref().is_some_and(is_stdout);
    let viewable = matches!(cli.command, None | Some(Command::Demo(_) | Command::Replay(_)));
    let chosen = cli.options.json || cli.options.summary_only || cli.options.format.is_some();
    let format = if viewable && !chosen && stdout_is_tty && !dumb && !to_stdout {
        Format::Tui
    } else {
        cli.format()
    };
    let stdout_is_taken = matches!(cli.command, Some(Command::Run(_))) || to_stdout;
    let stream =
        if stdout_is_taken && !format.is_for_programs() { Stream::Stderr } else { Stream::Stdout };
    let is_tty = match stream {
        Stream::Stdout => stdout_is_tty,
        Stream::Stderr => stderr_is_tty,
    };
    let color = !format.is_for_programs()
        && match cli.options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => environment_color(&env).unwrap_or(is_tty && !dumb),
        };
    let in_github = env("GITHUB_ACTIONS").is_some_and(|value| value == "true");
    Presentation {
        format,
        stream,
        color,
        ascii: !has_utf8(&env),
        columns: columns(&env),
        log_groups: in_github && format == Format::Text && !is_tty,
    }
}

/// The width that the environment demands; see environ(7).
fn columns(env: impl Fn(&str) -> Option<OsString>) -> Option<usize> {
    env("COLUMNS")?.to_str()?.parse().ok().filter(|columns| *columns > 0)
}

/// Whether the environment demands or forbids colours, see <https://no-color.org> and
/// <https://bixense.com/clicolors>.
fn environment_color(env: impl Fn(&str) -> Option<OsString>) -> Option<bool> {
    let is_set = |name| env(name).is_some_and(|value| !value.is_empty());
    if is_set("NO_COLOR") {
        Some(false)
    } else if is_set("CLICOLOR_FORCE") && env("CLICOLOR_FORCE").is_none_or(|value| value != "0") {
        Some(true)
    } else {
        None
    }
}

/// Whether the locale's encoding is UTF-8, by the same precedence as setlocale(3).
fn has_utf8(env: impl Fn(&str) -> Option<OsString>) -> bool {
    let mut set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env);
    let locale = set.find(|value| !value.is_empty()).unwrap_or_default();
    let locale = locale.to_string_lossy().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cli(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::from_args(["etxtbsy-trace"].iter().chain(args).map(OsString::from))
    }

    #[test]
    fn a_locale_without_utf8_selects_ascii() {
        for (env, ascii) in [
            (&[][..], true),
            (&[("LANG", "C")], true),
            (&[("LANG", "de_DE.UTF-8")], false),
            (&[("LANG", "C.utf8"), ("LC_ALL", "")], false),
            (&[("LANG", "C.UTF-8"), ("LC_CTYPE", "POSIX")], true),
        ] {
            assert_eq!(decide(&[], (true, true), env).ascii, ascii, "{env:?}");
        }
    }

    fn decide(args: &[&str], tty: (bool, bool), env: &[(&str, &str)]) -> Presentation {
        presentation(&cli(args).unwrap(), tty.0, tty.1, |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn format_and_stream() {
        use {
            Format::{Json, Text},
            Stream::{Stderr, Stdout},
        };
        for (args, format, stream) in [
            (&[][..], Text, Stdout),
            (&["-p", "1"], Text, Stdout),
            (&["-o", "x"], Text, Stdout),
            (&["-o", "-"], Text, Stderr),
            (&["-o", "/dev/stdout"], Text, Stderr),
            (&["--json"], Json, Stdout),
            (&["--format", "json"], Json, Stdout),
            (&["run", "ls"], Text, Stderr),
            (&["run", "--format", "text", "ls"], Text, Stderr),
            (&["run", "--json", "ls"], Json, Stdout),
            (&["demo"], Text, Stdout),
        ] {
            let found = decide(args, (false, false), &[]);
            assert_eq!((found.format, found.stream), (format, stream), "{args:?}");
        }
    }

    #[test]
    fn a_terminal_has_the_view() {
        use Format::{Json, Text, Tui};
        for (args, tty, env, format) in [
            (&["replay", "x"][..], true, &[][..], Tui),
            (&["replay", "x"], false, &[], Text),
            (&["replay", "x"], true, &[("TERM", "dumb")], Text),
            (&["replay", "x", "-o", "-"], true, &[], Text),
            (&["replay", "x", "--format", "text"], true, &[], Text),
            (&["replay", "x", "--json"], true, &[], Json),
            (&["replay", "x", "--format", "tui"], false, &[], Tui),
            (&[], true, &[], Tui),
            (&[], false, &[], Text),
            (&["demo"], true, &[], Tui),
            (&["run", "ls"], true, &[], Text),
            (&["--summary-only"], true, &[], Text),
            (&["replay", "x", "--summary-only"], true, &[], Text),
        ] {
            assert_eq!(decide(args, (tty, false), env).format, format, "{args:?} {tty} {env:?}");
        }
        assert!(decide(&["replay", "x"], (true, true), &[]).color);
        assert!(!decide(&["replay", "x"], (true, true), &[("NO_COLOR", "1")]).color);
    }

    #[test]
    fn columns_of_the_environment_are_heeded_if_valid() {
        for (value, columns) in [
            ("80", Some(80)),
            ("1", Some(1)),
            ("0", None),
            ("-3", None),
            ("wide", None),
            ("", None),
        ] {
            assert_eq!(
                decide(&[], (true, true), &[("COLUMNS", value)]).columns,
                columns,
                "{value}"
            );
        }
        assert_eq!(decide(&[], (true, true), &[]).columns, None);
    }

    #[test]
    fn the_log_of_github_has_groups() {
        let github = ("GITHUB_ACTIONS", "true");
        for (args, tty, env, groups) in [
            (&["run", "ls"][..], (false, false), &[github][..], true),
            (&["run", "ls"], (false, false), &[("GITHUB_ACTIONS", "false")], false),
            (&["run", "ls"], (false, false), &[], false),
            (&["run", "ls"], (false, true), &[github], false),
            (&["run", "ls"], (true, false), &[github], true),
            (&["replay", "f"], (false, false), &[github], true),
            (&["replay", "f", "--json"], (false, false), &[github], false),
        ] {
            assert_eq!(decide(args, tty, env).log_groups, groups, "{args:?} {tty:?} {env:?}");
        }
    }

    #[test]
    fn colour() {
        let both = (true, true);
        for (args, tty, env, color) in [
            (&[][..], (true, false), &[][..], true),
            (&[], (false, true), &[], false),
            (&["run", "ls"], (false, true), &[], true),
            (&["run", "ls"], (true, false), &[], false),
            (&[], both, &[("NO_COLOR", "1")], false),
            (&[], both, &[("NO_COLOR", "")], true),
            (&[], both, &[("TERM", "dumb")], false),
            (&[], (false, false), &[("CLICOLOR_FORCE", "1")], true),
            (&[], (false, false), &[("CLICOLOR_FORCE", "0")], false),
            (&[], both, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (&["--color", "always"], (false, false), &[("NO_COLOR", "1")], true),
            (&["--color", "never"], both, &[("CLICOLOR_FORCE", "1")], false),
            (&["--json", "--color", "always"], both, &[], false),
        ] {
            assert_eq!(decide(args, tty, env).color, color, "{args:?} {tty:?} {env:?}");
        }
    }
}
