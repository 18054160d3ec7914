//! The words that verdicts share.

use crate::{
    event::{Holder, How, Incident, Opened, State, Via},
    text::time,
};

/// `comm[pid]`.
pub(super) fn who(comm: Option<&str>, pid: u32) -> String {
    format!("{}[{pid}]", comm.unwrap_or("?"))
}

/// `comm[pid]` of a holder.
pub(super) fn name(holder: &Holder) -> String {
    who(holder.comm.as_deref(), holder.pid)
}

/// `comm[pid]` of the holder itself or a process above it. (The threads that acted have names of
/// their own.)
pub(super) fn ancestor(holder: &Holder, pid: u32) -> String {
    let above = holder.ancestors.iter().find(|ancestor| ancestor.pid == pid);
    let own = (holder.pid == pid).then_some(holder.comm.as_deref()).flatten();
    who(own.or_else(|| above.and_then(|ancestor| ancestor.comm.as_deref())), pid)
}

/// `thread 4305 of demo[4300]`, or only the process if its first thread acted.
pub(super) fn thread(process: String, pid: u32, tid: u32) -> String {
    if pid == tid { process } else { format!("thread {tid} of {process}") }
}

/// The thread that opened the file for a holder.
pub(super) fn opener(holder: &Holder, opened: &Opened) -> String {
    thread(ancestor(holder, opened.pid), opened.pid, opened.tid)
}

/// A time that people can read: `180 µs`.
pub(super) fn span(ns: u64) -> String {
    time::span(ns)
}

/// When and how a holder dropped the file, in words that follow "it held the file".
pub(super) fn release(holder: &Holder) -> String {
    let runs = holder.via == Via::Running;
    let Some(released) = &holder.released else {
        return match (runs, holder.state) {
            (true, State::InExec) => "and was still in that exec, or ran it, when this was written",
            (true, _) => "and still ran it when this was written",
            // do_coredump comes before exit_files.
            (false, State::Exiting) => {
                "and still had it when this was written: it was ending, and a process that dumps \
                 core keeps its files until the dump is written"
            }
            (false, _) => "and still had it when this was written",
        }
        .to_owned();
    };
    let after = u64::try_from(released.after_ns).unwrap_or(0);
    let how = match released.how {
        How::Unknown => {
            return format!("and dropped it unseen, within {} of the failure", span(after));
        }
        _ if after == 0 && !runs => {
            return "and dropped the file while the call was failing".to_owned();
        }
        How::Close => "closed it",
        How::CloseOnExec => "exec'd",
        How::Dup => "put another file in its place",
        How::Exit => "ended",
        How::Exec => "ran another program",
        How::Unmap if runs => "ran another program",
        How::Unmap => "unmapped the file",
        How::Other(_) => "dropped it",
    };
    match after {
        0 => format!("and {how} while the call was failing"),
        after => format!("and {how} {} after the failure", span(after)),
    }
}

/// Whether the process whose exec failed is the holder.
pub(super) fn is_victim(incident: &Incident, holder: &Holder) -> bool {
    incident.victim.pid == holder.pid
}
