//! `run`: traces a command and all that it starts.

use super::{
    args::{Cli, Run},
    streams::present,
    trace::{ToRun, trace},
};
use crate::host::{identity, owned_output::is_stdout};

/// Traces the command; its exit status.
pub(super) fn run(cli: &Cli, run: &Run) -> anyhow::Result<u8> {
    let user = identity::for_command(run.user.as_deref())?;
    let user = user.as_ref();
    let to_stdout = cli.options.output.as_deref().is_some_and(is_stdout);
    if to_stdout || present(cli).format.is_for_programs() {
        log::warn!("CMD has the same stdout as the JSON lines; -o FILE keeps them apart");
    }
    let (best_effort, ends) = (run.best_effort, run.kill_after_stop);
    trace(cli, Some(ToRun { argv: &run.argv, user, best_effort, ends }), None)
}
