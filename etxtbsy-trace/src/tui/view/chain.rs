//! The way of the fd: who opened the file, whose fork copied it, who held it, whose call failed.

use super::style;
use crate::{
    analysis::ways,
    event::{Ancestor, Direction, Evidence, Fd, Holder, How, Incident, Opened, Place, Released},
    text::{
        escape::{self, Charset},
        name, other_pids, time,
    },
    timeline::lanes::comm_of,
    tui::model::state::State,
};
use ratatui::{
    layout::Size,
    style::Style,
    text::{Line, Span},
};

/// How many holders are shown.
const HOLDERS: usize = 32;
/// How many columns of a name are always shown.
const NAME: usize = 16;
/// How few columns of it are left if need be.
const LEAST: usize = 5;
/// The kinds of lines, those that are shown in full first at the beginning.
const EVERYTHING: [&str; 6] = ["holder ", "opener ", "victim ", "process ", "fork ", "kept "];
/// What stands between facts.
const GAP: &str = " · ";
/// How few columns of a fact are still worth showing.
const WORTH: usize = 8;

/// The tree of the incident shown: every fact, or where that is more than there is room for, every
/// one of the holders, or a line for each process.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let Some((_, incident)) = state.shown() else { return Vec::new() };
    let tree = tree(state, incident);
    let draw = |all: &'static [&'static str]| {
        let mut drawing = Drawing {
            charset: style::charset(state),
            columns: size.width.into(),
            all,
            lines: Vec::new(),
        };
        for node in &tree {
            drawing.node(node, "", "");
        }
        drawing.lines
    };
    let mut lines = Vec::new();
    for all in [&EVERYTHING[..], &EVERYTHING[..1], &[]] {
        lines = draw(all);
        if lines.len() <= usize::from(size.height) {
            break;
        }
    }
    lines
}

/// Something worth knowing: our words round one of another process.
struct Fact {
    before: String,
    raw: String,
    after: String,
    style: Style,
}

/// A line of the tree: a process, or a fork.
struct Node {
    /// What it is to the failure.
    what: &'static str,
    style: Style,
    /// The process.
    pid: Option<u32>,
    /// Whether it is known to have ended, or of little interest.
    faint: bool,
    /// The most important first, beginning with who it is.
    facts: Vec<Fact>,
    /// How many of them are shown even if the name has to be cut for that.
    must: usize,
    below: Vec<Node>,
    /// What it is the same as.
    key: Key,
}

/// What makes two nodes the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Opener(u32, u32, u64),
    Process(u32),
    Fork(u32, u32),
    Leaf,
}

fn plain(text: impl Into<String>) -> Fact {
    Fact { before: text.into(), raw: String::new(), after: String::new(), style: Style::new() }
}

fn named(before: &str, raw: Option<&str>) -> Fact {
    Fact { raw: raw.unwrap_or("?").to_owned(), ..plain(before) }
}

fn process(pid: u32, comm: Option<&str>) -> Fact {
    Fact { after: format!("[{pid}]"), style: style::strong(), ..named("", comm) }
}

impl Node {
    fn new(what: &'static str, style: Style, pid: Option<u32>, key: Key) -> Self {
        Self { what, style, pid, faint: false, facts: Vec::new(), must: 1, below: Vec::new(), key }
    }

    /// The node of a process in the tree.
    fn find(&mut self, pid: u32) -> Option<&mut Self> {
        if self.pid == Some(pid) {
            return Some(self);
        }
        self.below.iter_mut().find_map(|node| node.find(pid))
    }
}

/// The one of `nodes` that is the same as `node`, which is put there if none is.
fn same(nodes: &mut Vec<Node>, node: Node) -> &mut Node {
    let known = nodes.iter().position(|other| other.key == node.key && node.key != Key::Leaf);
    let at = known.unwrap_or_else(|| {
        nodes.push(node);
        nodes.len() - 1
    });
    &mut nodes[at]
}

/// All that is known, openers first.
fn tree(state: &State, incident: &Incident) -> Vec<Node> {
    let mut roots: Vec<Node> = Vec::new();
    for holder in incident.holders.iter().take(HOLDERS) {
        let mut nodes = &mut roots;
        let mut above = None;
        if let Some(opened) = &holder.opened {
            let comm = comm_of(holder, opened.pid);
            nodes = &mut same(nodes, opener(state, incident, opened, comm)).below;
            above = Some(opened.pid);
            let forker = holder.forked.as_ref().map(|forked| forked.pid);
            // The line of the fork names who forked the holder.
            for between in between(holder, opened.pid).filter(|it| Some(it.pid) != forker) {
                let mut node = Node::new(
                    "process ",
                    style::faint(),
                    Some(between.pid),
                    Key::Process(between.pid),
                );
                node.faint = between.exe.is_none();
                node.facts.push(process(between.pid, between.comm.as_deref()));
                node.facts.extend(between.exe.as_deref().map(|exe| named("exe ", Some(exe))));
                nodes = &mut same(nodes, node).below;
                above = Some(between.pid);
            }
        }
        if let Some(forked) = &holder.forked {
            let key = Key::Fork(forked.pid, forked.tid);
            let mut node = Node::new("fork ", style::fork(state), None, key);
            if above != Some(forked.pid) {
                node.pid = Some(forked.pid);
                node.facts.push(process(forked.pid, comm_of(holder, forked.pid)));
            }
            node.facts.push(named(&format!("thread {} ", forked.tid), forked.comm.as_deref()));
            nodes = &mut same(nodes, node).below;
        }
        nodes.push(held(state, incident, holder));
    }
    let more = incident.holders.len().saturating_sub(HOLDERS);
    if more > 0 {
        let mut node = Node::new("holder ", style::holder(state), None, Key::Leaf);
        node.facts.push(plain(format!("and {more} more")));
        roots.push(node);
    }
    for unheld in &incident.unheld {
        let mut nodes = &mut roots;
        if let Some(opened) = &unheld.opened {
            nodes = &mut same(nodes, opener(state, incident, opened, None)).below;
        }
        let mut node = Node::new("kept ", style::holder(state), None, Key::Leaf);
        let label = ways::of_place(unheld.place).label;
        node.facts.push(match unheld.place {
            Place::Other(_) => plain(format!("by {}", name(unheld.place))),
            _ if label.ends_with(' ') => named(label, unheld.device.as_deref()),
            _ => plain(label),
        });
        nodes.push(node);
    }
    if roots.is_empty() {
        let mut node = Node::new("holder ", style::bad(state), None, Key::Leaf);
        node.facts.push(plain("not found"));
        roots.push(node);
    }
    put_victim(state, incident, &mut roots);
    roots
}

/// The processes by which a holder descends from `pid`, the eldest first; none if it does not.
fn between(holder: &Holder, pid: u32) -> impl Iterator<Item = &Ancestor> {
    let at = holder.ancestors.iter().position(|ancestor| ancestor.pid == pid);
    holder.ancestors[..at.unwrap_or(0)].iter().rev()
}

fn opener(state: &State, incident: &Incident, opened: &Opened, comm: Option<&str>) -> Node {
    let key = Key::Opener(opened.pid, opened.tid, opened.time_ns);
    let mut node = Node::new("opener ", style::opener(state), Some(opened.pid), key);
    let at = offset(incident, opened.time_ns);
    let thread = opened.comm.as_deref().filter(|thread| comm != Some(*thread));
    node.facts = vec![
        process(opened.pid, comm.or(thread)),
        Fact {
            raw: thread.unwrap_or_default().to_owned(),
            ..plain(format!("thread {} ", opened.tid))
        },
        plain(format!("{at} opened")),
        named("", opened.path.as_deref()),
    ];
    if thread.is_none() {
        node.facts[1] = plain(format!("thread {}", opened.tid));
    }
    node.must = 3;
    node
}

/// How it held the file, and dropped it.
fn held(state: &State, incident: &Incident, holder: &Holder) -> Node {
    let mut node = Node::new("holder ", style::holder(state), Some(holder.pid), Key::Leaf);
    let ended = holder.released.as_ref().is_some_and(|released| released.how == How::Exit);
    node.faint = ended;
    let facts = &mut node.facts;
    facts.push(process(holder.pid, holder.comm.as_deref()));
    if holder.evidence == Some(Evidence::Elimination) {
        facts.push(Fact { style: style::bad(state), ..plain("likely") });
    }
    facts.extend(numbers(&holder.fds));
    if ways::of(holder.via).is_named {
        facts.push(plain(format!("via {}", name(holder.via))));
    }
    facts.push(plain(name(holder.state)));
    let (until, look) = match &holder.released {
        Some(released) => (let_go(released), style::good(state)),
        None if state.now_ns(incident).is_some() => {
            ("holds it now".to_owned(), style::holder(state))
        }
        None if incident.direction == Direction::Write => {
            ("still runs it".to_owned(), style::holder(state))
        }
        None => ("still holds it".to_owned(), style::holder(state)),
    };
    facts.push(Fact { style: look, ..plain(until) });
    node.must = facts.len();
    let exec = holder.released.as_ref().and_then(|released| released.exec.as_deref());
    facts.extend(exec.map(|exec| named("exec ", Some(exec))));
    if holder.opened.as_ref().is_some_and(|opened| opened.pid == holder.pid) {
        facts.push(plain("the opener itself"));
    }
    facts.extend(
        holder
            .forked
            .as_ref()
            .map(|forked| plain(format!("{} forked", offset(incident, forked.time_ns)))),
    );
    facts.extend(holder.exec_ns.map(|ns| plain(format!("{} exec'd it", offset(incident, ns)))));
    facts.extend(holder.fds.iter().map(flags));
    facts.extend(holder.exe.as_deref().map(|exe| named("exe ", Some(exe))));
    let victim = &incident.victim;
    facts.extend(circumstances(
        holder.uid.filter(|_| holder.uid != victim.uid),
        other_pids(holder.pid, holder.local_pid, holder.ns_pid),
        holder.cgroup.as_deref().filter(|_| holder.cgroup != victim.cgroup),
    ));
    node
}

/// User, pids in other namespaces, and cgroup.
fn circumstances(
    uid: Option<u32>,
    pids: impl Iterator<Item = String>,
    cgroup: Option<&str>,
) -> impl Iterator<Item = Fact> {
    let uid = uid.map(|uid| plain(format!("uid {uid}")));
    let cgroup = cgroup.map(|cgroup| named("cgroup ", Some(cgroup)));
    uid.into_iter().chain(pids.map(plain)).chain(cgroup)
}

/// The numbers of the fds.
fn numbers(fds: &[Fd]) -> Option<Fact> {
    let all: Vec<String> = fds.iter().map(|fd| fd.fd.to_string()).collect();
    let word = if all.len() > 1 { "fds" } else { "fd" };
    (!all.is_empty()).then(|| named(&format!("{word} "), Some(&all.join(", "))))
}

/// The flags of an fd.
fn flags(fd: &Fd) -> Fact {
    let cloexec = match fd.cloexec {
        Some(false) => ", not close-on-exec",
        _ => "",
    };
    Fact {
        after: cloexec.to_owned(),
        ..named(&format!("fd {}: ", fd.fd), Some(&fd.flags.join("|")))
    }
}

/// How and when it dropped the file.
fn let_go(released: &Released) -> String {
    let how = match released.how {
        How::Exit => "ended".to_owned(),
        How::Unknown => "had dropped it".to_owned(),
        how => name(how),
    };
    match u64::try_from(released.after_ns) {
        Ok(after @ 1..) => format!("+{} {how}", time::span(after)),
        _ => format!("{how} during the call"),
    }
}

/// Puts the victim below its parent, or the process it is, if either is in the tree.
fn put_victim(state: &State, incident: &Incident, roots: &mut Vec<Node>) {
    let victim = &incident.victim;
    let mut node = Node::new("victim ", style::bad(state), None, Key::Leaf);
    let mut place = None;
    for pid in [Some(victim.pid), victim.ppid].into_iter().flatten() {
        if place.is_none() {
            place = (0..roots.len()).find(|at| roots[*at].find(pid).is_some()).map(|at| (at, pid));
        }
    }
    let path = incident.path.as_ref().or(incident.file.path.as_ref());
    let facts = &mut node.facts;
    facts.push(process(victim.pid, victim.comm.as_deref()));
    if victim.tid != victim.pid {
        facts.push(plain(format!("thread {}", victim.tid)));
    }
    let what = named("", Some(&incident.syscall));
    let what = Fact { after: ": Text file busy".to_owned(), style: style::bad(state), ..what };
    facts.push(what);
    node.must = facts.len();
    facts.push(named("", path.map(String::as_str)));
    let busy = incident.file.path.as_deref().filter(|busy| incident.path.as_deref() != Some(*busy));
    facts.extend(busy.map(|busy| named("busy: ", Some(busy))));
    if place.is_none() {
        facts.extend(victim.ppid.map(|ppid| plain(format!("child of {ppid}"))));
    }
    facts.extend(victim.exe.as_deref().map(|exe| named("exe ", Some(exe))));
    let differs = |other: &dyn Fn(&Holder) -> bool| incident.holders.iter().any(other);
    facts.extend(circumstances(
        victim.uid.filter(|_| differs(&|holder| holder.uid != victim.uid)),
        other_pids(victim.pid, victim.local_pid, victim.ns_pid),
        victim.cgroup.as_deref().filter(|_| differs(&|holder| holder.cgroup != victim.cgroup)),
    ));
    match place.and_then(|(at, pid)| roots[at].find(pid)) {
        Some(parent) => parent.below.push(node),
        None => roots.push(node),
    }
}

/// A moment, counted from the failure.
fn offset(incident: &Incident, time_ns: u64) -> String {
    let sign = if time_ns < incident.time_ns { '-' } else { '+' };
    format!("{sign}{}", time::span(time_ns.abs_diff(incident.time_ns)))
}

struct Drawing {
    charset: Charset,
    columns: usize,
    /// What may have more than a line.
    all: &'static [&'static str],
    lines: Vec<Line<'static>>,
}

impl Drawing {
    /// A node behind `first`, and what is below it behind `rest`.
    fn node(&mut self, node: &Node, first: &str, rest: &str) {
        let bar = if node.below.is_empty() { "  " } else { "│ " };
        let rows = self.rows(node, escape::width(first) + node.what.len());
        for (at, facts) in rows.into_iter().enumerate() {
            let look = if node.faint { style::faint() } else { Style::new() };
            let label = if at == 0 { node.what } else { "" };
            let before = if at == 0 { first.to_owned() } else { format!("{rest}{bar}") };
            // What goes on stands under what it goes on from.
            let used = if at == 0 { 0 } else { node.what.len().saturating_sub(2) };
            let mut line = Line::from(vec![
                Span::styled(before, style::faint()),
                Span::styled(label, node.style.patch(look)),
                Span::raw(" ".repeat(used)),
            ]);
            for (at, (text, own)) in facts.into_iter().enumerate() {
                if at > 0 {
                    line.push_span(Span::styled(GAP, style::faint()));
                }
                line.push_span(Span::styled(text, own.patch(look)));
            }
            self.lines.push(line);
        }
        for (at, below) in node.below.iter().enumerate() {
            let last = at + 1 == node.below.len();
            let (branch, bar) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.node(below, &format!("{rest}{branch}"), &format!("{rest}{bar}"));
        }
    }

    /// The facts of a node, in lines that begin behind `used` columns.
    fn rows(&self, node: &Node, used: usize) -> Vec<Vec<(String, Style)>> {
        let room = self.columns.saturating_sub(used);
        let own = |fact: &Fact| escape::width(&fact.before) + escape::width(&fact.after);
        let must = node.facts.iter().take(node.must).skip(1);
        let must: usize =
            must.map(|fact| escape::width(GAP) + escape::width(&self.fact(fact, NAME))).sum();
        let mut rows = vec![Vec::new()];
        let mut free = room;
        for (at, fact) in node.facts.iter().enumerate() {
            let whole = self.fact(fact, usize::MAX);
            let text = if at == 0 {
                let most = room.saturating_sub(must);
                self.fact(fact, most.clamp(own(fact) + LEAST, own(fact) + NAME).min(room))
            } else if escape::width(&whole) <= free {
                whole
            } else if self.all.contains(&node.what) {
                rows.push(Vec::new());
                free = room;
                self.fact(fact, room)
            } else if own(fact) + WORTH <= free && !fact.raw.is_empty() {
                self.fact(fact, free)
            } else {
                continue;
            };
            free = free.saturating_sub(escape::width(&text) + escape::width(GAP));
            if let Some(row) = rows.last_mut() {
                row.push((text, fact.style));
            }
        }
        rows
    }

    /// A fact in at most so many columns, if our own words leave room for that.
    fn fact(&self, fact: &Fact, columns: usize) -> String {
        let own = escape::width(&fact.before) + escape::width(&fact.after);
        let raw = self.charset.short(&fact.raw, columns.saturating_sub(own));
        format!("{}{raw}{}", fact.before, fact.after)
    }
}
