//! Writes the man pages and the shell completions of etxtbsy-trace, from the definition of its command line. It is a
//! program of its own, so that the shipped one needs neither.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;
use etxtbsy_trace::cli::args::Cli;

/// The shells for which distributions have a place for completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).context("give the directory to write to")?;
    write(&PathBuf::from(directory))
}

/// Writes the pages to `man1`, and the completions to a directory for each shell.
fn write(directory: &Path) -> Result<()> {
    let name = "etxtbsy-trace";
    let pages = directory.join("man1");
    fs::create_dir_all(&pages)?;
    // The subcommands have pages of their own, with the global options.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    clap_mangen::generate_to(command, &pages)
        .with_context(|| format!("cannot write man pages to {}", pages.display()))?;
    for shell in SHELLS {
        let place = directory.join(shell.to_string());
        fs::create_dir_all(&place)?;
        clap_complete::generate_to(shell, &mut Cli::command(), name, &place)
            .with_context(|| format!("cannot write completions to {}", place.display()))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The command line of the systemd unit is one that this version understands.
    #[test]
    fn the_service_starts_with_valid_options() {
        let unit = include_str!("../../packaging/etxtbsy-trace.service");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        let cli = Cli::from_args(start.split_whitespace().map(Into::into)).unwrap();
        assert!(cli.command.is_none() && cli.options.file.append);
    }

    #[test]
    fn each_subcommand_has_a_page_and_each_shell_completions() {
        let [one, two] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        write(one.path()).unwrap();
        write(two.path()).unwrap();
        let pages = names(&one.path().join("man1"));
        for page in ["etxtbsy-trace.1", "etxtbsy-trace-run.1", "etxtbsy-trace-report.1"] {
            assert!(pages.contains(page), "{pages:?}");
        }
        let page = |directory: &Path| fs::read(directory.join("man1/etxtbsy-trace.1")).unwrap();
        let text = String::from_utf8(page(one.path())).unwrap();
        assert!(text.contains("rotate") && text.contains("Exit status"), "{text}");
        assert_eq!(page(one.path()), page(two.path()));
        for (shell, file) in [
            ("bash", "etxtbsy-trace.bash"),
            ("zsh", "_etxtbsy-trace"),
            ("fish", "etxtbsy-trace.fish"),
        ] {
            assert!(names(&one.path().join(shell)).contains(file), "{shell}");
        }
    }
}
