//! The program of a process in an incident, without pids.

use super::names::{pattern, program};
use crate::event::{Holder, Opened, State, Via};

/// Programs that close what they inherited before they run the real program.
const HELPERS: [&str; 2] = ["jspawnhelper", "systemd-executor"];

/// The program that opened the file for a holder, without its pid.
#[must_use]
pub fn opener_program(holder: &Holder, opened: &Opened) -> Option<String> {
    process_program(holder, opened.pid).or_else(|| opened.comm.as_deref().map(pattern))
}

/// The program that holds the file, without its pid: `sleep`, or `a child of make`, if it has not
/// exec'd since it was forked.
#[must_use]
pub fn holder_program(holder: &Holder) -> Option<String> {
    if has_execed(holder) { process_program(holder, holder.pid) } else { child_of(holder) }
}

/// `a child of make`.
pub(super) fn child_of(holder: &Holder) -> Option<String> {
    let Some(forked) = &holder.forked else { return process_program(holder, holder.pid) };
    let program = process_program(holder, forked.pid);
    let program = program.or_else(|| forked.comm.as_deref().map(pattern))?;
    Some(format!("a child of {program}"))
}

/// The program of a holder or of a process above it.
fn process_program(holder: &Holder, pid: u32) -> Option<String> {
    let above = holder.ancestors.iter().find(|above| above.pid == pid);
    let (exe, comm) = match above {
        _ if holder.pid == pid => (holder.exe.as_deref(), holder.comm.as_deref()),
        Some(above) => (above.exe.as_deref(), above.comm.as_deref()),
        None => return None,
    };
    exe.map(base).or(comm).map(program)
}

/// The last component of a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a child has exec'd since it got the fd, as far as its state at the failure shows.
#[must_use]
pub fn has_execed(holder: &Holder) -> bool {
    holder.via != Via::Fork || holder.state == State::Running && !is_helper(holder)
}

/// Whether it runs a program that is known to close what it inherited.
pub(super) fn is_helper(holder: &Holder) -> bool {
    let exe = holder.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    // A thread's name is cut after 15 bytes.
    let comm = holder.comm.as_deref().filter(|_| holder.state == State::Running);
    HELPERS.iter().any(|helper| {
        exe == Some(helper) || comm.is_some_and(|comm| comm == &helper[..helper.len().min(15)])
    })
}
