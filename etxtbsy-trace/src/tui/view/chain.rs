//! The chain of the fd: the opener, the fork that copied it, the holder, and the victim.

use super::style;
use crate::analysis::near_miss::is_near_miss;
use crate::{
    analysis::{frames, ways},
    event::{
        Ancestor, Context, Direction, Evidence, Fd, Frame, Holder, How, Incident, Opened, Place,
    },
    text::{
        escape::{self, Charset},
        name, other_pids,
    },
    timeline::lanes::comm_of,
    tui::model::{state::State, words},
};
use ratatui::{
    layout::Size,
    style::Style,
    text::{Line, Span},
};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// The most holders shown.
const HOLDERS: usize = 32;
/// The columns of a name, if there is room.
const NAME: usize = 16;
/// The fewest columns of a name.
const LEAST: usize = 5;
/// The kinds of lines; the first is the first to be shown in full.
const EVERYTHING: [&str; 6] = ["holder ", "opener ", "victim ", "process ", "fork ", "kept "];
/// Longer names of functions and files lose their middle, in bytes; no terminal has as many columns.
const LONG: usize = 8192;
/// The separator of pieces.
const GAP: &str = " · ";
/// The fewest columns in which a piece is shown.
const WORTH: usize = 8;

/// The tree of the incident shown: with all pieces, or if there is no room, with all pieces of the holders,
/// or with one line for each process.
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

/// A piece of a line: our own words around a string of another process.
struct Piece {
    before: String,
    raw: String,
    after: String,
    style: Style,
}

/// A line of the tree: a process, or a fork.
struct Node {
    /// The label of the line.
    what: &'static str,
    style: Style,
    /// The process.
    pid: Option<u32>,
    /// Whether the process is known to have exited, or matters less.
    faint: bool,
    /// The most important first, beginning with the name.
    pieces: Vec<Piece>,
    /// How many of them are always shown, even if the name must be shortened.
    must: usize,
    below: Vec<Node>,
    /// Nodes with equal keys are merged.
    key: Key,
}

/// Identifies a node. A leaf equals no other node. Forks at different places in the code of one thread differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Opener(u32, u32, u64),
    Process(u32),
    Fork(u32, u32, u64),
    Leaf,
}

fn plain(text: impl Into<String>) -> Piece {
    Piece { before: text.into(), raw: String::new(), after: String::new(), style: Style::new() }
}

fn named(before: &str, raw: Option<&str>) -> Piece {
    Piece { raw: raw.unwrap_or("?").to_owned(), ..plain(before) }
}

fn process(pid: u32, comm: Option<&str>) -> Piece {
    Piece { after: format!("[{pid}]"), style: style::strong(), ..named("", comm) }
}

impl Node {
    fn new(what: &'static str, style: Style, pid: Option<u32>, key: Key) -> Self {
        Self { what, style, pid, faint: false, pieces: Vec::new(), must: 1, below: Vec::new(), key }
    }

    /// The node of a process in the tree.
    fn find(&mut self, pid: u32) -> Option<&mut Self> {
        if self.pid == Some(pid) {
            return Some(self);
        }
        self.below.iter_mut().find_map(|node| node.find(pid))
    }
}

/// The node of `nodes` with the same key as `node`, which is added if there is none.
fn merge(nodes: &mut Vec<Node>, node: Node) -> &mut Node {
    let known = nodes.iter().position(|other| other.key == node.key && node.key != Key::Leaf);
    let at = known.unwrap_or_else(|| {
        nodes.push(node);
        nodes.len() - 1
    });
    &mut nodes[at]
}

/// The whole tree, openers first.
fn tree(state: &State, incident: &Incident) -> Vec<Node> {
    let mut roots: Vec<Node> = Vec::new();
    for holder in incident.holders.iter().take(HOLDERS) {
        let mut nodes = &mut roots;
        let mut above = None;
        if let Some(opened) = &holder.opened {
            let comm = comm_of(holder, opened.pid);
            nodes = &mut merge(nodes, opener(state, incident, opened, comm)).below;
            above = Some(opened.pid);
            let forker = holder.forked.as_ref().map(|forked| forked.pid);
            // The line of the fork names the forker.
            for between in between(holder, opened.pid).filter(|it| Some(it.pid) != forker) {
                let mut node = Node::new(
                    "process ",
                    style::faint(),
                    Some(between.pid),
                    Key::Process(between.pid),
                );
                node.faint = between.exe.is_none();
                node.pieces.push(process(between.pid, between.comm.as_deref()));
                node.pieces.extend(between.exe.as_deref().map(|exe| named("exe ", Some(exe))));
                nodes = &mut merge(nodes, node).below;
                above = Some(between.pid);
            }
        }
        if let Some(forked) = &holder.forked {
            let place = places(forked.stack.as_deref());
            let key = Key::Fork(forked.pid, forked.tid, digest(&place));
            let mut node = Node::new("fork ", style::fork(state), None, key);
            if above != Some(forked.pid) {
                node.pid = Some(forked.pid);
                node.pieces.push(process(forked.pid, comm_of(holder, forked.pid)));
            }
            node.pieces.push(named(&format!("thread {} ", forked.tid), forked.comm.as_deref()));
            node.pieces.extend(place);
            nodes = &mut merge(nodes, node).below;
        }
        nodes.push(held(state, incident, holder));
    }
    let more = incident.holders.len().saturating_sub(HOLDERS);
    if more > 0 {
        let mut node = Node::new("holder ", style::holder(state), None, Key::Leaf);
        node.pieces.push(plain(format!("and {more} more")));
        roots.push(node);
    }
    for unheld in &incident.unheld {
        let mut nodes = &mut roots;
        if let Some(opened) = &unheld.opened {
            nodes = &mut merge(nodes, opener(state, incident, opened, None)).below;
        }
        let mut node = Node::new("kept ", style::holder(state), None, Key::Leaf);
        let label = ways::of_place(unheld.place).label;
        node.pieces.push(match unheld.place {
            Place::Other(_) => plain(format!("by {}", name(unheld.place))),
            _ if label.ends_with(' ') => named(label, unheld.device.as_deref()),
            _ => plain(label),
        });
        nodes.push(node);
    }
    if roots.is_empty() {
        let mut node = Node::new("holder ", style::bad(state), None, Key::Leaf);
        node.pieces.push(plain("not found"));
        roots.push(node);
    }
    put_victim(state, incident, &mut roots);
    roots
}

/// The processes between a holder and its ancestor `pid`, the eldest first; none if it is no ancestor.
fn between(holder: &Holder, pid: u32) -> impl Iterator<Item = &Ancestor> {
    let at = holder.ancestors.iter().position(|ancestor| ancestor.pid == pid);
    holder.ancestors[..at.unwrap_or(0)].iter().rev()
}

fn opener(state: &State, incident: &Incident, opened: &Opened, comm: Option<&str>) -> Node {
    let key = Key::Opener(opened.pid, opened.tid, opened.time_ns);
    let mut node = Node::new("opener ", style::opener(state), Some(opened.pid), key);
    let at = words::offset(incident, opened.time_ns);
    let thread = opened.comm.as_deref().filter(|thread| comm != Some(*thread));
    node.pieces = vec![
        process(opened.pid, comm.or(thread)),
        Piece {
            raw: thread.unwrap_or_default().to_owned(),
            ..plain(format!("thread {} ", opened.tid))
        },
        plain(format!("{at} opened")),
        named("", opened.path.as_deref()),
    ];
    if thread.is_none() {
        node.pieces[1] = plain(format!("thread {}", opened.tid));
    }
    node.must = 3;
    // Before the path, which is mostly that of the busy file.
    node.pieces.splice(3..3, places(opened.stack.as_deref()));
    node
}

/// The node of a holder.
fn held(state: &State, incident: &Incident, holder: &Holder) -> Node {
    let mut node = Node::new("holder ", style::holder(state), Some(holder.pid), Key::Leaf);
    let ended = holder.released.as_ref().is_some_and(|released| released.how == How::Exit);
    node.faint = ended;
    let pieces = &mut node.pieces;
    pieces.push(process(holder.pid, holder.comm.as_deref()));
    if holder.evidence == Some(Evidence::Elimination) {
        pieces.push(Piece { style: style::bad(state), ..plain("likely") });
    }
    pieces.extend(numbers(&holder.fds));
    if ways::of(holder.via).is_named {
        pieces.push(plain(format!("via {}", name(holder.via))));
    }
    pieces.push(plain(name(holder.state)));
    let (until, look) = match &holder.released {
        Some(released) => (words::release(released), style::good(state)),
        None if state.now_ns(incident).is_some() => {
            ("holds the file now".to_owned(), style::holder(state))
        }
        None if incident.direction == Direction::Write => {
            ("still runs the file".to_owned(), style::holder(state))
        }
        None => ("still holds the file".to_owned(), style::holder(state)),
    };
    pieces.push(Piece { style: look, ..plain(until) });
    node.must = pieces.len();
    let exec = holder.released.as_ref().and_then(|released| released.exec.as_deref());
    pieces.extend(exec.map(|exec| named("exec ", Some(exec))));
    if holder.opened.as_ref().is_some_and(|opened| opened.pid == holder.pid) {
        pieces.push(plain("the opener itself"));
    }
    pieces.extend(
        holder
            .forked
            .as_ref()
            .map(|forked| plain(format!("{} forked", words::offset(incident, forked.time_ns)))),
    );
    pieces.extend(
        holder.exec_ns.map(|ns| plain(format!("{} exec'd it", words::offset(incident, ns)))),
    );
    pieces.extend(holder.fds.iter().map(flags));
    pieces.extend(holder.exe.as_deref().map(|exe| named("exe ", Some(exe))));
    let victim = &incident.victim;
    pieces.extend(circumstances(
        holder.uid.filter(|_| holder.uid != victim.uid),
        other_pids(holder.pid, holder.local_pid, holder.ns_pid),
        holder.cgroup.as_deref().filter(|_| holder.cgroup != victim.cgroup),
    ));
    pieces.extend(work(holder.context.as_ref(), victim.context.as_ref()));
    node
}

/// Test, job and container, but for what is the same in `other`.
fn work(context: Option<&Context>, other: Option<&Context>) -> Vec<Piece> {
    let facts = context.map(|context| context.beside(other)).unwrap_or_default();
    facts.into_iter().map(|(name, value)| named(&format!("{name} "), Some(value))).collect()
}

/// The user's own frames of a stack, the innermost first.
fn places(stack: Option<&[Frame]>) -> Vec<Piece> {
    let frame = |(at, frame): (usize, &Frame)| {
        let before = if at == 0 { "at " } else { "called by " };
        named(before, Some(&frames::brief(frame, &ends)))
    };
    frames::own(stack).into_iter().enumerate().map(frame).collect()
}

/// A text without the middle that no terminal is wide enough for.
fn ends(raw: &str) -> String {
    if raw.len() <= LONG {
        return raw.to_owned();
    }
    let head = raw.char_indices().map(|(at, _)| at).find(|at| *at >= LONG / 2);
    let tail = raw.char_indices().rev().map(|(at, _)| at).find(|at| raw.len() - at >= LONG / 2);
    match (head, tail) {
        (Some(head), Some(tail)) if head < tail => format!("{}{}", &raw[..head], &raw[tail..]),
        _ => raw.to_owned(),
    }
}

/// Distinguishes pieces.
fn digest(pieces: &[Piece]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for piece in pieces {
        piece.raw.hash(&mut hasher);
    }
    hasher.finish()
}

/// User, pids in other namespaces and cgroup.
fn circumstances(
    uid: Option<u32>,
    pids: impl Iterator<Item = String>,
    cgroup: Option<&str>,
) -> impl Iterator<Item = Piece> {
    let uid = uid.map(|uid| plain(format!("uid {uid}")));
    let cgroup = cgroup.map(|cgroup| named("cgroup ", Some(cgroup)));
    uid.into_iter().chain(pids.map(plain)).chain(cgroup)
}

/// The numbers of the fds.
fn numbers(fds: &[Fd]) -> Option<Piece> {
    let all: Vec<String> = fds.iter().map(|fd| fd.fd.to_string()).collect();
    let word = if all.len() > 1 { "fds" } else { "fd" };
    (!all.is_empty()).then(|| named(&format!("{word} "), Some(&all.join(", "))))
}

/// The flags of an fd.
fn flags(fd: &Fd) -> Piece {
    let cloexec = match fd.cloexec {
        Some(false) => ", not close-on-exec",
        _ => "",
    };
    Piece {
        after: cloexec.to_owned(),
        ..named(&format!("fd {}: ", fd.fd), Some(&fd.flags.join("|")))
    }
}

/// Adds the victim below its own process or its parent, if either is in the tree.
fn put_victim(state: &State, incident: &Incident, roots: &mut Vec<Node>) {
    let victim = &incident.victim;
    let mut node = Node::new("victim ", style::bad(state), None, Key::Leaf);
    let mut place = None;
    for pid in [Some(victim.pid), victim.ppid].into_iter().flatten() {
        if place.is_none() {
            place = (0..roots.len()).find(|at| roots[*at].find(pid).is_some()).map(|at| (at, pid));
        }
    }
    let pieces = &mut node.pieces;
    pieces.push(process(victim.pid, victim.comm.as_deref()));
    if victim.tid != victim.pid {
        pieces.push(plain(format!("thread {}", victim.tid)));
    }
    let what = named("", Some(&incident.syscall));
    let (after, look) = if is_near_miss(incident) {
        (": succeeded", style::good(state))
    } else {
        (": Text file busy", style::bad(state))
    };
    let what = Piece { after: after.to_owned(), style: look, ..what };
    pieces.push(what);
    node.must = pieces.len();
    pieces.extend(places(victim.stack.as_deref()));
    pieces.push(named("", incident.caller_path()));
    let busy = incident.file.path.as_deref().filter(|busy| incident.path.as_deref() != Some(*busy));
    pieces.extend(busy.map(|busy| named("busy: ", Some(busy))));
    if place.is_none() {
        pieces.extend(victim.ppid.map(|ppid| plain(format!("child of {ppid}"))));
    }
    pieces.extend(victim.exe.as_deref().map(|exe| named("exe ", Some(exe))));
    let differs = |other: &dyn Fn(&Holder) -> bool| incident.holders.iter().any(other);
    pieces.extend(circumstances(
        victim.uid.filter(|_| differs(&|holder| holder.uid != victim.uid)),
        other_pids(victim.pid, victim.local_pid, victim.ns_pid),
        victim.cgroup.as_deref().filter(|_| differs(&|holder| holder.cgroup != victim.cgroup)),
    ));
    pieces.extend(work(victim.context.as_ref(), None));
    match place.and_then(|(at, pid)| roots[at].find(pid)) {
        Some(parent) => parent.below.push(node),
        None => roots.push(node),
    }
}

struct Drawing {
    charset: Charset,
    columns: usize,
    /// The kinds of lines that may take several rows.
    all: &'static [&'static str],
    lines: Vec<Line<'static>>,
}

impl Drawing {
    /// Draws a node after the prefix `first`, and the nodes below it after `rest`.
    fn node(&mut self, node: &Node, first: &str, rest: &str) {
        let bar = if node.below.is_empty() { "  " } else { "│ " };
        let rows = self.rows(node, escape::width(first) + node.what.len());
        for (at, pieces) in rows.into_iter().enumerate() {
            let look = if node.faint { style::faint() } else { Style::new() };
            let label = if at == 0 { node.what } else { "" };
            let before = if at == 0 { first.to_owned() } else { format!("{rest}{bar}") };
            // Further rows of a node are indented.
            let used = if at == 0 { 0 } else { node.what.len().saturating_sub(2) };
            let mut line = Line::from(vec![
                Span::styled(before, style::faint()),
                Span::styled(label, node.style.patch(look)),
                Span::raw(" ".repeat(used)),
            ]);
            for (at, (text, own)) in pieces.into_iter().enumerate() {
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

    /// The pieces of a node in rows, the first of which starts after `used` columns.
    fn rows(&self, node: &Node, used: usize) -> Vec<Vec<(String, Style)>> {
        let room = self.columns.saturating_sub(used);
        let own = |piece: &Piece| escape::width(&piece.before) + escape::width(&piece.after);
        let must = node.pieces.iter().take(node.must).skip(1);
        let must: usize =
            must.map(|piece| escape::width(GAP) + escape::width(&self.piece(piece, NAME))).sum();
        let mut rows = vec![Vec::new()];
        let mut free = room;
        for (at, piece) in node.pieces.iter().enumerate() {
            let whole = self.piece(piece, usize::MAX);
            let text = if at == 0 {
                let most = room.saturating_sub(must);
                self.piece(piece, most.clamp(own(piece) + LEAST, own(piece) + NAME).min(room))
            } else if escape::width(&whole) <= free {
                whole
            } else if self.all.contains(&node.what) {
                rows.push(Vec::new());
                free = room;
                self.piece(piece, room)
            } else if own(piece) + WORTH <= free && !piece.raw.is_empty() {
                self.piece(piece, free)
            } else {
                continue;
            };
            free = free.saturating_sub(escape::width(&text) + escape::width(GAP));
            if let Some(row) = rows.last_mut() {
                row.push((text, piece.style));
            }
        }
        rows
    }

    /// A piece in at most that many columns, if our own words leave room.
    fn piece(&self, piece: &Piece, columns: usize) -> String {
        let own = escape::width(&piece.before) + escape::width(&piece.after);
        let raw = self.charset.short(&piece.raw, columns.saturating_sub(own));
        format!("{}{raw}{}", piece.before, piece.after)
    }
}
