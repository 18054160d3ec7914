//! The words that verdicts share.

use crate::{
    event::{Holder, How, Incident, Opened, State, Via},
    text::time,
};

/// A text with each `{word}` replaced by its value, or left as it is if it has none. The values may contain
/// braces: other processes choose names.
pub(super) fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let found = after.split_once('}').and_then(|(word, after)| Some((value(word)?, after)));
        let (value, after) = found.unwrap_or_else(|| ("{".to_owned(), after));
        filled.push_str(&value);
        rest = after;
    }
    filled + rest
}

/// `comm[pid]`.
pub(super) fn who(comm: Option<&str>, pid: u32) -> String {
    format!("{}[{pid}]", comm.unwrap_or("?"))
}

/// `comm[pid]` of a holder.
pub(super) fn name(holder: &Holder) -> String {
    who(holder.comm.as_deref(), holder.pid)
}

/// `comm[pid]` of the holder itself or of an ancestor. A thread can have another name than its
/// process.
pub(super) fn ancestor(holder: &Holder, pid: u32) -> String {
    let above = holder.ancestors.iter().find(|ancestor| ancestor.pid == pid);
    let own = (holder.pid == pid).then_some(holder.comm.as_deref()).flatten();
    who(own.or_else(|| above.and_then(|ancestor| ancestor.comm.as_deref())), pid)
}

/// `thread 4305 of demo[4300]`; only the process if it was the main thread.
pub(super) fn thread(process: String, pid: u32, tid: u32) -> String {
    if pid == tid { process } else { format!("thread {tid} of {process}") }
}

/// The thread that opened the file for a holder.
pub(super) fn opener(holder: &Holder, opened: &Opened) -> String {
    thread(ancestor(holder, opened.pid), opened.pid, opened.tid)
}

/// A duration: `180 µs`.
pub(super) fn span(ns: u64) -> String {
    time::span(ns)
}

/// When and how a holder released the file, as a clause: `it closed the file 2.10 ms after the
/// failure`. `subject` is the holder's name, or `it` where that is unambiguous.
pub(super) fn release(subject: &str, holder: &Holder) -> String {
    let runs = holder.via == Via::Running;
    let Some(released) = &holder.released else {
        let still = match (runs, holder.state) {
            (true, State::InExec) => {
                "was still in that exec, or ran the file, when this was written"
            }
            (true, _) => "still ran the file when this was written",
            // do_coredump comes before exit_files.
            (false, State::Exiting) => {
                "was exiting and still held the file when this was written: a process that dumps \
                 core keeps its files until the dump is written"
            }
            (false, _) => "still held the file when this was written",
        };
        return format!("{subject} {still}");
    };
    let after = u64::try_from(released.after_ns).unwrap_or(0);
    let how = match released.how {
        How::Unknown => {
            let within = span(after);
            return format!(
                "{subject} released the file within {within} of the failure; how was not seen"
            );
        }
        _ if after == 0 && !runs => "released the file",
        How::Close => "closed the file",
        How::CloseOnExec => "released the file by its exec",
        How::Dup => "replaced the fd (dup2)",
        How::Exit => "exited",
        How::Exec => "exec'd another program",
        How::Unmap if runs => "exec'd another program",
        How::Unmap => "unmapped the file",
        How::Other(_) => "released the file",
    };
    match after {
        0 => format!("{subject} {how} while the call was failing"),
        after => format!("{subject} {how} {} after the failure", span(after)),
    }
}

/// Whether the process whose exec failed is the holder.
pub(super) fn is_victim(incident: &Incident, holder: &Holder) -> bool {
    incident.victim.pid == holder.pid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_braces_are_not_filled_in_again() {
        let value = |word: &str| match word {
            "holder" => Some("a{fd}".to_owned()),
            "fd" => Some("3".to_owned()),
            _ => None,
        };
        assert_eq!(fill("{holder} has {fd}, {other} {", value), "a{fd} has 3, {other} {");
    }
}
