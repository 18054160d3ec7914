//! The way of the fd: who opened the file, whose fork copied it, who held it, whose call failed.

use super::style;
use crate::{
    lines::{Direction, Holder, Incident},
    output::{escape, name, time},
    tui::state::State,
};
use ratatui::{
    layout::Size,
    style::Style,
    text::{Line, Span},
};

/// How many holders are shown.
const HOLDERS: usize = 8;

/// The tree of the incident shown.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let Some((_, incident)) = state.shown() else { return Vec::new() };
    let width = usize::from(size.width);
    let mut lines = Vec::new();
    let mut put = |depth: usize, style: Style, what: &str, text: String| {
        let branch = if depth == 0 { String::new() } else { "   ".repeat(depth - 1) + "└─ " };
        let text = vec![Span::raw(branch), Span::styled(what.to_owned(), style), Span::raw(text)];
        lines.push(Line::from(text));
    };
    for holder in incident.holders.iter().take(HOLDERS) {
        let mut depth = 0;
        if let Some(opened) = &holder.opened {
            let path = escape::short(opened.path.as_deref().unwrap_or("?"), width / 3);
            let who = thread(holder, opened.pid, opened.tid, opened.comm.as_deref());
            let at = offset(incident, opened.time_ns);
            let text = format!("{at} {who} opened {path} for writing");
            put(depth, style::strong(), "opener ", text);
            depth += 1;
        }
        if let Some(forked) = &holder.forked {
            let who = thread(holder, forked.pid, forked.tid, forked.comm.as_deref());
            let at = offset(incident, forked.time_ns);
            let text = format!("{at} {who} forked {}", holder.pid);
            put(depth, style::strong(), "fork   ", text);
            depth += 1;
        }
        put(depth, style::holder(state), "holder ", held(incident, holder));
    }
    let more = incident.holders.len().saturating_sub(HOLDERS);
    if more > 0 {
        put(0, style::holder(state), "holder ", format!("and {more} more"));
    }
    if incident.holders.is_empty() {
        put(0, style::bad(state), "holder ", "not found".to_owned());
    }
    let victim = &incident.victim;
    let path = incident.path.as_ref().or(incident.file.path.as_ref());
    let path = escape::short(path.map_or("?", String::as_str), width / 3);
    let who = process(victim.pid, victim.comm.as_deref());
    let parent = victim.ppid.map(|ppid| format!(", child of {ppid}")).unwrap_or_default();
    let call = escape::short(&incident.syscall, 16);
    put(0, style::bad(state), "victim ", format!("{who} {call} {path}: Text file busy{parent}"));
    lines
}

/// How it held the file, and let go.
fn held(incident: &Incident, holder: &Holder) -> String {
    let mut facts = vec![process(holder.pid, holder.comm.as_deref())];
    facts.push(name(holder.state));
    facts.push(match &holder.released {
        Some(released) => {
            let exec = released.exec.as_deref().map(|exec| format!(" {}", escape::short(exec, 40)));
            let at = offset(incident, released.time_ns);
            format!("{at} {}{}", name(released.how), exec.unwrap_or_default())
        }
        None if incident.direction == Direction::Write => "still runs it".to_owned(),
        None => "still holds it".to_owned(),
    });
    facts.extend(holder.fds.iter().take(2).map(|fd| {
        let flags: Vec<String> = fd.flags.iter().map(|flag| escape::short(flag, 16)).collect();
        format!("fd {} {}", fd.fd, flags.join("|"))
    }));
    if holder.cgroup != incident.victim.cgroup
        && let Some(cgroup) = &holder.cgroup
    {
        facts.push(format!("cgroup {}", escape::short(cgroup, 40)));
    }
    facts.join(" · ")
}

/// A thread of a process whose own name is known if it is the holder or one of its ancestors.
fn thread(holder: &Holder, pid: u32, tid: u32, comm: Option<&str>) -> String {
    let thread = format!("thread {tid} ({})", escape::short(comm.unwrap_or("?"), 32));
    format!("{} {thread}", process(pid, comm_of(holder, pid)))
}

/// The name of a process among the holder and its ancestors.
pub(super) fn comm_of(holder: &Holder, pid: u32) -> Option<&str> {
    if holder.pid == pid {
        return holder.comm.as_deref();
    }
    let ancestor = holder.ancestors.iter().find(|ancestor| ancestor.pid == pid);
    ancestor.and_then(|ancestor| ancestor.comm.as_deref())
}

fn process(pid: u32, comm: Option<&str>) -> String {
    format!("{}[{pid}]", escape::short(comm.unwrap_or("?"), 32))
}

/// A moment, counted from the failure.
fn offset(incident: &Incident, time_ns: u64) -> String {
    let sign = if time_ns < incident.time_ns { '-' } else { '+' };
    format!("{sign}{}", time::span(time_ns.abs_diff(incident.time_ns)))
}
