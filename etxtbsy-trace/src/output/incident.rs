//! One incident as text: in full, or in one line if its group has been shown.

use super::fold::Folded;
use super::look::{Look, Tone};
use super::stack;
use crate::analysis::wait::Wait;
use crate::event::{
    Context, Direction, Evidence, Fd, Holder, How, Incident, Opened, Place, Refusal, Role, Run,
    State, Unheld, Via,
};
use crate::text::{escape::width, name, other_pids, time};

/// `strerror(ETXTBSY)`, which the user has seen.
const BUSY: &str = "Text file busy";
/// Longer paths, command lines, names and sentences are shortened; in columns.
const PATH: usize = 100;
const COMMAND: usize = 80;
const NAME: usize = 32;
const SENTENCE: usize = 800;
/// The width of the labels.
const INDENT: &str = "           ";

/// The incident in full, on several lines. `first` is the id of the first incident of its group, if
/// that is another.
pub(super) fn full(incident: &Incident, first: Option<u64>, look: Look) -> String {
    without_advice(incident, look) + &advice(incident, first, look)
}

/// The incident in full, but without its advice.
pub(crate) fn without_advice(incident: &Incident, look: Look) -> String {
    let mut out = head(incident, look);
    out += &victim(incident, look);
    out += &busy(incident, look);
    let shown = look.many(4);
    let holders = incident.holders.iter().take(shown);
    let mut events: Vec<Vec<Event>> =
        holders.map(|holder| events(incident, holder, look)).collect();
    // One time column for all holders, so that they can be compared.
    let offsets: Vec<i64> = events.iter().flatten().map(|event| event.offset).collect();
    let mut cells = time::column(&offsets).into_iter();
    for (holder, events) in incident.holders.iter().zip(&mut events) {
        out += &holder_lines(incident, holder, look);
        let cells: Vec<String> = cells.by_ref().take(events.len()).collect();
        out += &tree(events, &cells, holder, look);
    }
    let rest = incident.holders.len().saturating_sub(shown);
    if rest > 0 {
        out += &labelled(
            "",
            &format!("and {} (-v shows them)", count(rest as u64, "more holder", "more holders")),
            look,
        );
    }
    if let Some(repaired) = &incident.repaired {
        let after = time::span(u64::try_from(repaired.after_ns).unwrap_or(0));
        let new =
            format!("the same process created the file again {after} later: ino {}", repaired.ino);
        out += &labelled("repaired", &look.paint(Tone::Good, &new), look);
    }
    out + &missing(incident, look) + &uncertain(incident, look) + &verdict(incident, look)
}

/// Many incidents of one group in one line.
pub(super) fn folded(folded: &Folded, look: Look) -> String {
    let Folded { first, last, count, .. } = folded;
    let like = match (folded.retries_of, folded.like) {
        (Some(first), _) if *count == 1 => format!("  (retry of #{first})"),
        (Some(first), _) => format!("  (retries of #{first})"),
        (None, Some(first)) => format!("  (like #{first})"),
        (None, None) => String::new(),
    };
    let like = look.paint(Tone::Faint, &like);
    let (number, text) = if *count == 1 {
        (format!("#{}", first.id), essence(first, look))
    } else {
        let span = time::span(folded.times_ns.1 - folded.times_ns.0);
        let times = look.paint(Tone::Strong, &format!("{count} times in {span}"));
        let file = folded.file.text();
        let file = file.map_or_else(|| "(path unknown)".to_owned(), |path| look.short(&path, PATH));
        let what = if folded.retries_of.is_some() {
            let victim = match (folded.victim, last.victim.ppid) {
                (None, Some(parent)) => format!("children of pid {parent}"),
                _ => process(last.victim.pid, last.victim.comm.as_deref(), look),
            };
            format!("{file}  {times} by {victim}, {}", held(last, look))
        } else {
            let verdict = folded.verdict.map_or_else(|| "several causes".to_owned(), name);
            format!("{file}  {times}: {verdict}, {}", waits(folded, look))
        };
        (folded.ids.text(), format!("{}  {what}", clock(first, look)))
    };
    look.line(&format!("{number}  "), &(text + &like))
}

/// Until when the files of these incidents were busy.
fn waits(folded: &Folded, look: Look) -> String {
    let mut parts = Vec::new();
    if let Some((least, most)) = folded.waits_ns {
        let (from, to) = (time::span(least), time::span(most));
        let span = if from == to { from } else { format!("{from} to {to}") };
        parts.push(look.paint(Tone::Good, &format!("released after {span}")));
    }
    for (number, what, tone) in [
        (folded.endless, "still held", Tone::Holder),
        (folded.unknown, "held by no known process", Tone::Bad),
    ] {
        match number {
            0 => {}
            all if all == folded.count => parts.push(look.paint(tone, what)),
            some => parts.push(look.paint(tone, &format!("{some} {what}"))),
        }
    }
    parts.join(", ")
}

/// The incident in one line without colours, as a heading.
pub(super) fn title(incident: &Incident, look: Look) -> String {
    let look = Look { color: false, columns: None, ..look };
    look.line(&format!("#{}  ", incident.id), &essence(incident, look))
}

/// When a call failed, for which file, who held it, and until when.
fn essence(incident: &Incident, look: Look) -> String {
    format!("{}  {}  {}", clock(incident, look), caller_path(incident, look), held(incident, look))
}

/// The time of day at which the call failed.
fn clock(incident: &Incident, look: Look) -> String {
    time::clock(&incident.time).unwrap_or_else(|| look.short(&incident.time, NAME))
}

/// Who held the file, and until when.
fn held(incident: &Incident, look: Look) -> String {
    let released = match Wait::of(incident) {
        Wait::Over(0) => look.paint(Tone::Good, "released while the call was failing"),
        Wait::Over(ns) => look.paint(Tone::Good, &format!("released after {}", time::span(ns))),
        Wait::Endless => look.paint(Tone::Holder, "still held"),
        Wait::Unknown if place_known(incident) => look.paint(Tone::Holder, "held by no process"),
        Wait::Unknown => look.paint(Tone::Bad, "holder not found"),
    };
    let held = match incident.holders.as_slice() {
        [] => String::new(),
        [only] => likely(only) + &process(only.pid, only.comm.as_deref(), look),
        [first, rest @ ..] => {
            let first = process(first.pid, first.comm.as_deref(), look);
            format!("{first} and {} more", rest.len())
        }
    };
    let held = match held.as_str() {
        "" => String::new(),
        held => format!("{} → ", look.paint(Tone::Holder, held)),
    };
    format!("{held}{}, {released}", name(incident.verdict.kind))
}

/// Calls that are only counted, as one line.
pub(super) fn refusal(refusal: &Refusal, look: Look) -> String {
    let call = look.short(&refusal.syscall, NAME);
    let times = match refusal.count {
        1 => String::new(),
        times => format!(" {times} times"),
    };
    let text = format!(
        "{} by {} failed{times}: {BUSY} (only counted, holder not searched; see docs/limitations.md)",
        look.paint(Tone::Strong, &call),
        process(refusal.pid, refusal.comm.as_deref(), look),
    );
    look.line("", &text)
}

/// Which call failed, and when.
fn head(incident: &Incident, look: Look) -> String {
    let moment = time::moment(&incident.time).unwrap_or_else(|| look.short(&incident.time, NAME));
    let call = look.short(&incident.syscall, NAME);
    let run = incident.run.map(|run| format!("  (run {})", run_name(run))).unwrap_or_default();
    let text = format!(
        "{}  {call} {}: {}{run}",
        look.paint(Tone::Faint, &moment),
        look.paint(Tone::Strong, &caller_path(incident, look)),
        look.paint(Tone::Bad, BUSY),
    );
    look.line(&format!("{}  ", look.paint(Tone::Strong, &format!("#{}", incident.id))), &text)
}

/// A run of a hunt.
pub(crate) fn run_name(run: Run) -> String {
    format!("{}{}", run.number, if run.provoked { ", provoked" } else { "" })
}

/// The path as the caller gave it.
fn caller_path(incident: &Incident, look: Look) -> String {
    let path = incident.caller_path();
    path.map_or_else(|| "(path unknown)".to_owned(), |path| look.short(path, PATH))
}

/// The process whose call failed.
fn victim(incident: &Incident, look: Look) -> String {
    let victim = &incident.victim;
    let mut facts = vec![look.paint(Tone::Bad, &process(victim.pid, victim.comm.as_deref(), look))];
    if victim.tid != victim.pid {
        facts.push(format!("thread {}", victim.tid));
    }
    facts.extend(victim.uid.map(|uid| format!("uid {uid}")));
    facts.extend(other_pids(victim.pid, victim.local_pid, victim.ns_pid));
    facts.extend(victim.ppid.map(|ppid| format!("parent {ppid}")));
    let cwd = victim.cwd.as_ref();
    facts.extend(cwd.map(|cwd| format!("cwd {}", look.short(cwd, PATH))));
    let (exe, argv) = (victim.exe.as_deref(), victim.argv.as_deref());
    let second = program(exe, argv, cgroup(incident, victim.cgroup.as_ref(), look), look);
    labelled("victim", &facts.join(" · "), look)
        + &second
        + &context(victim.context.as_ref(), None, look)
        + &stack::lines("failed at", victim.stack.as_deref(), victim.frames_unknown, look)
            .iter()
            .map(|line| labelled("", line, look))
            .collect::<String>()
}

/// The line with the test, job and container of a process, what it has in common with `other` left out.
fn context(context: Option<&Context>, other: Option<&Context>, look: Look) -> String {
    let facts = context.map(|context| context.beside(other)).unwrap_or_default();
    let shown = |(name, value)| format!("{name} {}", look.short(value, PATH));
    let facts: Vec<String> = facts.into_iter().map(shown).collect();
    if facts.is_empty() { String::new() } else { labelled("", &facts.join(" · "), look) }
}

/// The busy file.
fn busy(incident: &Incident, look: Look) -> String {
    let file = &incident.file;
    let path = file.path.as_ref();
    let path = path.map_or_else(|| "(path unknown)".to_owned(), |path| look.short(path, PATH));
    let mut facts = vec![look.paint(Tone::Strong, &path)];
    if file.path.is_some() && incident.holders.iter().any(|it| is_elsewhere(incident, it)) {
        facts[0] += " (as the victim's mount namespace sees it)";
    }
    facts.extend(file.role.map(|role| match role {
        Role::Target => "the target itself".to_owned(),
        Role::ScriptInterpreter => "the interpreter in the #! line".to_owned(),
        Role::ElfInterpreter => "the interpreter in the ELF header".to_owned(),
        Role::Other(_) => name(role),
    }));
    let dev = file.dev.as_ref().map(|dev| format!("dev {}", look.short(dev, NAME)));
    let ino = file.ino.map(|ino| format!("ino {ino}"));
    let place: Vec<String> = dev.into_iter().chain(ino).collect();
    if !place.is_empty() {
        facts.push(place.join(" "));
    }
    match file.writers {
        Some(writers) if writers < 0 && incident.unheld.iter().any(is_binfmt_entry) => {
            let times = count(writers.unsigned_abs().into(), "time", "times");
            facts.push(format!("writing denied {times}"));
        }
        Some(writers) if writers < 0 => {
            let (counted, named) = (writers.unsigned_abs(), incident.holders.len() as u64);
            // The kernel counts a process in its exec twice.
            let known = incident.complete && named > 0;
            let many = if known { named } else { counted.into() };
            let by = format!("run by {}", count(many, "process", "processes"));
            let differs = many != u64::from(counted);
            facts.push(if differs { format!("{by}, counted as {counted}") } else { by });
        }
        Some(writers) => facts.push(count(writers.unsigned_abs().into(), "writer", "writers")),
        None if incident.direction == Direction::Exec => facts.push("writers unknown".to_owned()),
        None => {}
    }
    labelled("busy", &facts.join(" · "), look)
}

/// Whether a binfmt_misc entry keeps the file, which can be without any process that runs it.
fn is_binfmt_entry(unheld: &Unheld) -> bool {
    unheld.place == Place::BinfmtMisc
}

/// A holder, without its events.
fn holder_lines(incident: &Incident, holder: &Holder, look: Look) -> String {
    let process = process(holder.pid, holder.comm.as_deref(), look);
    let mut facts = vec![look.paint(Tone::Holder, &process)];
    facts.extend(fds(&holder.fds, look));
    facts.push(match holder.via {
        Via::Running => match holder.state {
            State::InExec => "in an exec of the file".to_owned(),
            State::Exiting => "runs the file, exiting".to_owned(),
            State::Forked => "runs the file, a forked copy".to_owned(),
            _ => "runs the file".to_owned(),
        },
        via => format!("via {}, {}", name(via), name(holder.state)),
    });
    if holder.evidence == Some(Evidence::Elimination) {
        facts.push(look.paint(Tone::Bad, "likely"));
    }
    let evidence = holder.evidence.filter(|_| look.verbose);
    facts.extend(evidence.map(|evidence| format!("known by {}", name(evidence))));
    if holder.pid == incident.victim.pid {
        facts.push("the victim itself".to_owned());
    }
    let script = holder.script.as_ref().map(|script| look.short(script, PATH));
    facts.extend(script.map(|script| format!("the interpreter of {script}")));
    facts.extend(
        holder
            .call
            .as_ref()
            .map(|call| format!("kept by an unfinished {} call", look.short(call, NAME))),
    );
    if holder.state == State::Exiting && holder.released.is_none() && holder.via != Via::Running {
        facts.push("keeps its files until its core dump (if any) is written".to_owned());
    }
    if holder.uid != incident.victim.uid {
        facts.extend(holder.uid.map(|uid| format!("uid {uid}")));
    }
    facts.extend(other_pids(holder.pid, holder.local_pid, holder.ns_pid));
    let (exe, argv) = (holder.exe.as_deref(), holder.argv.as_deref());
    let second = program(exe, argv, cgroup(incident, holder.cgroup.as_ref(), look), look);
    labelled("holder", &facts.join(" · "), look)
        + &second
        + &context(holder.context.as_ref(), incident.victim.context.as_ref(), look)
        + &ancestors(holder, look)
}

/// The fds with their flags.
fn fds(fds: &[Fd], look: Look) -> Option<String> {
    let each = fds.iter().take(look.many(4)).map(|fd| {
        let flags: Vec<String> = fd.flags.iter().map(|flag| look.short(flag, NAME)).collect();
        let cloexec = match fd.cloexec {
            Some(false) => " not close-on-exec",
            Some(true) if !fd.flags.iter().any(|flag| flag == "O_CLOEXEC") => " close-on-exec",
            _ => "",
        };
        let mut text = format!("{} {}", fd.fd, flags.join("|"));
        text.truncate(text.trim_end().len());
        text + cloexec
    });
    let each: Vec<String> = each.collect();
    let rest = fds.len() - each.len();
    match fds.len() {
        0 => None,
        1 => Some(format!("fd {}", each.join(""))),
        _ if rest > 0 => Some(format!("fds {} and {rest} more", each.join(", "))),
        _ => Some(format!("fds {}", each.join(", "))),
    }
}

/// The line with executable, arguments and cgroup of a process.
fn program(
    exe: Option<&str>,
    argv: Option<&[String]>,
    cgroup: Option<String>,
    look: Look,
) -> String {
    let exe = exe.map(|exe| format!("exe {}", look.short(exe, PATH)));
    let argv = argv.filter(|argv| !argv.is_empty());
    let argv = argv.map(|argv| format!("argv {}", look.command(argv, COMMAND)));
    let facts: Vec<String> = exe.into_iter().chain(argv).chain(cgroup).collect();
    if facts.is_empty() {
        return String::new();
    }
    labelled("", &look.paint(Tone::Faint, &facts.join(" · ")), look)
}

/// The cgroup, if victim and holders are in different ones.
fn cgroup(incident: &Incident, cgroup: Option<&String>, look: Look) -> Option<String> {
    let all = incident.holders.iter().map(|holder| &holder.cgroup);
    let differ = all.into_iter().any(|other| *other != incident.victim.cgroup);
    let cgroup = cgroup.filter(|_| differ || look.verbose)?;
    Some(format!("cgroup {}", look.short(cgroup, PATH)))
}

/// The line with the ancestors of a holder.
fn ancestors(holder: &Holder, look: Look) -> String {
    if holder.ancestors.is_empty() {
        return String::new();
    }
    let shown = holder.ancestors.iter().take(look.many(6));
    let mut chain: Vec<String> =
        shown.map(|ancestor| process(ancestor.pid, ancestor.comm.as_deref(), look)).collect();
    if chain.len() < holder.ancestors.len() {
        chain.push("…".to_owned());
    }
    let chain = format!("child of {}", chain.join(" ← "));
    labelled("", &look.paint(Tone::Faint, &chain), look)
}

/// Something that happened to a hold.
struct Event {
    /// Nanoseconds after the failure.
    offset: i64,
    text: String,
    /// Where in its code the thread was that did it.
    place: Vec<String>,
}

impl Event {
    fn new(offset: i64, text: String) -> Self {
        Self { offset, text, place: Vec::new() }
    }
}

/// What happened to the hold, and the failure, in order of time.
fn events(incident: &Incident, holder: &Holder, look: Look) -> Vec<Event> {
    let since = |time_ns: u64| {
        let offset = i128::from(time_ns) - i128::from(incident.time_ns);
        i64::try_from(offset).unwrap_or(if offset < 0 { i64::MIN } else { i64::MAX })
    };
    let mut events = Vec::new();
    if let Some(start_ns) = holder.start_ns.filter(|_| look.verbose) {
        events.push(Event::new(since(start_ns), "started".to_owned()));
    }
    if let Some(opened) = &holder.opened {
        events.push(Event {
            offset: since(opened.time_ns),
            text: opened_text(incident, holder, opened, look),
            place: stack::lines("at", opened.stack.as_deref(), opened.frames_unknown, look),
        });
    }
    if let Some(forked) = &holder.forked {
        let by = thread(holder, forked.pid, forked.tid, forked.comm.as_deref(), look);
        events.push(Event {
            offset: since(forked.time_ns),
            text: format!("forked by {by}"),
            place: stack::lines("at", forked.stack.as_deref(), forked.frames_unknown, look),
        });
    }
    let call = look.short(&incident.syscall, NAME);
    events.push(Event::new(0, look.paint(Tone::Bad, &format!("{call} failed: {BUSY}"))));
    if let Some(released) = &holder.released {
        let exec = released.exec.as_ref().map(|exec| look.short(exec, PATH));
        let how = match (released.how, exec) {
            (How::Close, _) => "released by close".to_owned(),
            (How::CloseOnExec, Some(exec)) => format!("released by close-on-exec: exec of {exec}"),
            (How::CloseOnExec, None) => "released by close-on-exec".to_owned(),
            (How::Dup, _) => "released by dup2 onto its fd".to_owned(),
            (How::Exit, _) => "released by exit".to_owned(),
            (How::Unmap, _) => "released by munmap".to_owned(),
            (How::Exec, _) => "released by exec of another program".to_owned(),
            (How::Unknown, _) => "already released; when and how was not seen".to_owned(),
            (how @ How::Other(_), _) => format!("released by {}", name(how)),
        };
        let how =
            if released.after_ns <= 0 { format!("{how}, while the call was failing") } else { how };
        events.push(Event::new(released.after_ns, look.paint(Tone::Good, &how)));
    }
    // A stable sort keeps cause before effect where both have the same time.
    events.sort_by_key(|event| event.offset);
    events
}

/// Who opened the file, and by which name if it is another.
fn opened_text(incident: &Incident, holder: &Holder, opened: &Opened, look: Look) -> String {
    let by = thread(holder, opened.pid, opened.tid, opened.comm.as_deref(), look);
    let busy = incident.file.path.as_ref();
    let other = opened.path.as_ref().filter(|path| busy.is_some_and(|busy| busy != *path));
    let elsewhere = is_elsewhere(incident, holder);
    match other {
        Some(path) => {
            let why = if elsewhere {
                "as its mount namespace sees it"
            } else {
                "another name of the file: a hard link, or the name before a rename"
            };
            format!("opened for writing by {by}, as {} ({why})", look.short(path, PATH))
        }
        None => format!("opened for writing by {by}"),
    }
}

/// Whether holder and victim seem to be in different containers.
fn is_elsewhere(incident: &Incident, holder: &Holder) -> bool {
    let victim = &incident.victim;
    let namespace = |pid: u32, own: Option<u32>| own.map(|own| own != pid);
    let ours = namespace(victim.pid, victim.ns_pid);
    let theirs = namespace(holder.pid, holder.ns_pid);
    ours.is_some() && theirs.is_some() && ours != theirs
        || matches!((&victim.cgroup, &holder.cgroup), (Some(one), Some(other)) if one != other)
}

/// The events as a tree, each after its time in `cells`.
fn tree(events: &[Event], cells: &[String], holder: &Holder, look: Look) -> String {
    let blank = " ".repeat(cells.first().map_or(0, |cell| width(cell)));
    let held = look.paint(Tone::Holder, "still held when this was written");
    let held = holder.released.is_none().then(|| Event::new(0, held));
    let rows: Vec<(&str, &Event)> = cells
        .iter()
        .map(String::as_str)
        .zip(events)
        .chain(held.as_ref().map(|held| (blank.as_str(), held)))
        .collect();
    let last = rows.len().saturating_sub(1);
    let mut out = String::new();
    for (at, (cell, event)) in rows.into_iter().enumerate() {
        let (branch, bar) = if at == last { ("└─", "  ") } else { ("├─", "│ ") };
        let [branch, bar] = [branch, bar].map(|sign| look.paint(Tone::Faint, sign));
        out += &look.line(&format!("{INDENT}{branch} {cell}  "), &event.text);
        for place in &event.place {
            out += &look.line(&format!("{INDENT}{bar} {blank}  "), place);
        }
    }
    out
}

/// How many descriptions a known place of the kernel keeps without a process.
fn known_places(incident: &Incident) -> u32 {
    let known = incident.unheld.iter().filter(|unheld| unheld.place != Place::Unknown);
    u32::try_from(known.count()).unwrap_or(u32::MAX)
}

/// Whether no process holds the file, but a known place of the kernel does.
fn place_known(incident: &Incident) -> bool {
    incident.holders.is_empty() && known_places(incident) > 0
}

/// The writers that are not accounted for.
fn missing(incident: &Incident, look: Look) -> String {
    // Recordings of schema 1 do not count known places as explained.
    let holders = u32::from(!incident.holders.is_empty());
    let found = incident.explained.max(known_places(incident) + holders);
    let what = match (incident.direction, incident.file.writers) {
        _ if incident.complete => return String::new(),
        (Direction::Exec, Some(writers)) => {
            match writers.unsigned_abs().saturating_sub(found) {
                0 if known_places(incident) > 0 => return String::new(),
                // Records were lost, so another process may hold one of these descriptions.
                0 => "there may be more holders".to_owned(),
                missing => {
                    format!("{} of {writers} not found", count(missing.into(), "writer", "writers"))
                }
            }
        }
        (Direction::Exec, None) if place_known(incident) => return String::new(),
        (Direction::Exec, None) => "the number of writers is unknown".to_owned(),
        (Direction::Write, _) => "not all processes that run the file were found".to_owned(),
        (Direction::Other(_), _) => "not all holders were found".to_owned(),
    };
    look.line("  ", &look.paint(Tone::Bad, &format!("unexplained: {what}")))
}

/// The holders that are known only by elimination.
fn uncertain(incident: &Incident, look: Look) -> String {
    let by_elimination = |holder: &&Holder| holder.evidence == Some(Evidence::Elimination);
    let likely = incident.holders.iter().filter(by_elimination).count();
    if likely == 0 || incident.certain {
        return String::new();
    }
    let what = format!(
        "uncertain: {} only likely: the evidence is the kernel's count of writers, which leaves no \
         other known process",
        count(likely as u64, "holder is", "holders are"),
    );
    look.line("  ", &look.paint(Tone::Bad, &what))
}

/// `likely `, for a holder that is known only by elimination.
fn likely(holder: &Holder) -> String {
    match holder.evidence {
        Some(Evidence::Elimination) => "likely ".to_owned(),
        _ => String::new(),
    }
}

/// The verdict.
fn verdict(incident: &Incident, look: Look) -> String {
    let verdict = &incident.verdict;
    let kind = look.paint(Tone::Strong, &name(verdict.kind));
    labelled("verdict", &format!("{kind}: {}", sentence(&verdict.summary, look)), look)
}

/// The advice: the first remedy, if the group has no incident before. The summary has all of it.
fn advice(incident: &Incident, first: Option<u64>, look: Look) -> String {
    let all = &incident.verdict.advice;
    let shown = look.many(1).min(all.len());
    if let Some(first) = first.filter(|_| !look.verbose && !all.is_empty()) {
        return labelled("advice", &look.paint(Tone::Faint, &format!("as for #{first}")), look);
    }
    let label = |at| if at == 0 { "advice" } else { "" };
    let lines = all[..shown]
        .iter()
        .enumerate()
        .map(|(at, one)| labelled(label(at), &sentence(one, look), look));
    lines.collect()
}

/// A sentence of verdict or advice, with names of other processes.
pub(crate) fn sentence(raw: &str, look: Look) -> String {
    let whole = look.prose(raw);
    if look.verbose || width(&whole) <= SENTENCE {
        return whole;
    }
    look.short(raw, SENTENCE)
}

/// `text` behind a label.
fn labelled(label: &str, text: &str, look: Look) -> String {
    look.line(&format!("  {label:9}"), text)
}

/// `1 writer`, `2 writers`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `comm[pid]`.
pub(super) fn process(pid: u32, comm: Option<&str>, look: Look) -> String {
    comm.map_or_else(|| format!("pid {pid}"), |comm| format!("{}[{pid}]", look.short(comm, NAME)))
}

/// The name of a process, if it is the holder or one of its ancestors.
pub(super) fn process_name(holder: &Holder, pid: u32) -> Option<&str> {
    let above = holder.ancestors.iter().map(|above| (above.pid, above.comm.as_deref()));
    let mut known = std::iter::once((holder.pid, holder.comm.as_deref())).chain(above);
    known.find(|(at, _)| *at == pid)?.1
}

/// A thread and its process. The name of the process is that of its main thread, or of the holder or
/// one of its ancestors.
fn thread(holder: &Holder, pid: u32, tid: u32, comm: Option<&str>, look: Look) -> String {
    if pid == tid {
        return process(pid, comm, look);
    }
    let process = process(pid, process_name(holder, pid), look);
    let comm = comm.map(|comm| format!(" ({})", look.short(comm, NAME)));
    format!("{process} thread {tid}{}", comm.unwrap_or_default())
}
