//! `run`: traces a command and its descendants.

use super::{
    args::{Cli, Run},
    streams::present,
    trace::{TracedCommand, trace},
};
use crate::host::{identity, owned_output::is_stdout};

/// Traces the command; returns its exit status.
pub(super) fn run(cli: &Cli, run: &Run) -> anyhow::Result<u8> {
    let user = identity::for_command(run.user.as_deref())?;
    let user = user.as_ref();
    let to_stdout = cli.options.output.as_deref().is_some_and(is_stdout);
    if to_stdout || present(cli).format.is_for_programs() {
        log::warn!("CMD and the JSON lines both write to stdout; use -o FILE to separate them");
    }
    let (best_effort, kill_after_stop) = (run.best_effort, run.kill_after_stop);
    let provocation = run.delays.provocation();
    let command =
        TracedCommand { argv: &run.argv, user, best_effort, kill_after_stop, provocation };
    trace(cli, Some(command), None, None)
}
