//! Verdicts: the cause of an incident, and what to do about it.
//!
//! Each rule is a type in a file of its own; the first that fits decides. A rule uses only what the
//! incident's line has, so it can judge a recorded incident again. docs/verdicts.md explains the
//! rules to users.

mod advice;
mod change_first;
mod fork_exec_race;
mod inherited;
mod leaked_fd;
mod name_collision;
mod passed_fd;
mod running_executable;
mod shared_mapping;
mod still_open;
mod words;

pub use change_first::ChangeFirst;

use crate::{
    analysis::ways::{self, PinWay},
    event::{
        Direction, Evidence, Holder, Incident, Place, Reason, Unheld, Verdict, VerdictKind, Via,
        later_word,
    },
    text::time,
};
use advice::Names;
use inherited::Inherited;
use words::{name, release, thread, who};

/// Every kind, in the order of [`VerdictKind`].
pub const KINDS: [VerdictKind; 12] = [
    VerdictKind::ForkExecRace,
    VerdictKind::StillOpen,
    VerdictKind::LeakedFd,
    VerdictKind::PassedFd,
    VerdictKind::SharedMapping,
    VerdictKind::RunningExecutable,
    VerdictKind::SwapFile,
    VerdictKind::BinfmtMisc,
    VerdictKind::RefusedByFilesystem,
    VerdictKind::LoopDevice,
    VerdictKind::NameCollision,
    VerdictKind::Unexplained,
];

/// A rule.
trait Rule {
    /// The kind of its verdicts.
    const KIND: VerdictKind;
    /// The holder that makes it fit, if one does.
    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder>;
    /// The sentence of the verdict.
    fn summary(&self, incident: &Incident, culprit: &Holder) -> String;
}

/// What a rule found.
struct Finding<'a> {
    kind: VerdictKind,
    culprit: &'a Holder,
    summary: String,
}

/// The verdict on an incident, where the whole machine is traced.
#[must_use]
pub fn of(incident: &Incident) -> Verdict {
    of_traced(incident, &[])
}

/// The verdict on an incident, where the trees of `roots` are traced.
#[must_use]
pub fn of_traced(incident: &Incident, roots: &[u32]) -> Verdict {
    if let Some(Finding { kind, culprit, summary }) = find(incident, roots) {
        let advice = advice::of(kind, incident, Some(culprit), Names::Incident);
        return Verdict { kind, summary: likely(culprit, summary), advice };
    }
    if let Some(holder) = incident.holders.first() {
        return unseen(holder);
    }
    match incident.unheld.first() {
        Some(first) => unheld(incident, first),
        None if !incident.suspects.is_empty() => suspected(incident),
        None => unexplained(incident.direction),
    }
}

/// The word in place of a verdict's kind for an exec that could have failed.
const NEAR_MISS: &str = "near-miss";

/// What is said of an exec that succeeded so long after the last holder of `incident` had released its copy.
#[must_use]
pub fn near_miss(incident: &Incident, margin_ns: u64) -> Verdict {
    let culprit = incident.holders.first();
    let margin = match margin_ns {
        0 => "during the exec".to_owned(),
        ns => format!("{} before the exec", time::span(ns)),
    };
    let who = culprit.map_or_else(|| "a process".to_owned(), name);
    let advice = advice::of_near_miss(incident, culprit);
    Verdict {
        kind: VerdictKind::Other(later_word::Word::new(NEAR_MISS)),
        summary: format!(
            "the exec succeeded, but {who} had inherited the write fd and released it only {margin}; unless \
             something that the tracer does not see orders both, the exec could have failed"
        ),
        advice,
    }
}

/// The holder that an incident's verdict is about, if it is about one.
#[must_use]
pub fn culprit(incident: &Incident) -> Option<&Holder> {
    let found = find(incident, &[]).map(|finding| finding.culprit);
    found.or_else(|| incident.holders.first())
}

/// What begins advice about something that people try and that cannot work.
const IN_VAIN: &str = "does not help: ";

/// The advice for all incidents like this one: it names programs, and no pids. Advice that the tables
/// do not have, such as that of a later version, is as recorded.
fn group_advice(incident: &Incident) -> Vec<String> {
    let advice = advice::of(incident.verdict.kind, incident, culprit(incident), Names::Group);
    if advice.is_empty() { incident.verdict.advice.clone() } else { advice }
}

/// The advice for a group of incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupAdvice {
    /// What helps, the best first.
    pub helps: Vec<String>,
    /// What people try that does not help here.
    pub in_vain: Vec<String>,
}

impl GroupAdvice {
    /// The advice that follows from one incident of the group. That with the longest wait rules out the
    /// most, so that no incident refutes the advice.
    #[must_use]
    pub fn of(longest: &Incident) -> Self {
        let mut advice = Self::default();
        for one in group_advice(longest) {
            match one.strip_prefix(IN_VAIN) {
                Some(rest) => advice.in_vain.push(rest.to_owned()),
                None => advice.helps.push(one),
            }
        }
        advice
    }
}

/// The first rule that fits.
fn find<'a>(incident: &'a Incident, roots: &[u32]) -> Option<Finding<'a>> {
    apply(&running_executable::RunningExecutable, incident)
        .or_else(|| apply(&name_collision::NameCollision { roots }, incident))
        .or_else(|| apply(&still_open::StillOpen, incident))
        .or_else(|| apply(&fork_exec_race::ForkExecRace, incident))
        .or_else(|| apply(&passed_fd::PassedFd, incident))
        .or_else(|| apply(&shared_mapping::SharedMapping, incident))
        .or_else(|| apply(&leaked_fd::LeakedFd, incident))
}

fn apply<'a, R: Rule>(rule: &R, incident: &'a Incident) -> Option<Finding<'a>> {
    let culprit = rule.culprit(incident)?;
    Some(Finding { kind: R::KIND, culprit, summary: rule.summary(incident, culprit) })
}

/// Whether all holders have the same verdict, so that one remedy fixes the incident.
fn is_fixed_by_one_remedy(incident: &Incident) -> bool {
    let mut kinds = incident.holders.iter().map(|holder| kind_of(incident, holder));
    let first = kinds.next();
    incident.complete
        && (incident.holders.is_empty() || incident.unheld.is_empty())
        && first.is_none_or(|first| first.is_some() && kinds.all(|kind| kind == first))
}

/// The verdict on one holder alone.
fn kind_of(incident: &Incident, holder: &Holder) -> Option<VerdictKind> {
    match (holder.via, inherited::of(incident, holder)) {
        _ if incident.direction == Direction::Write => Some(VerdictKind::RunningExecutable),
        (Via::Mapping, _) => ways::of(holder.via).verdict,
        _ if is_opener(holder) => Some(VerdictKind::StillOpen),
        (via, _) if ways::of(via).verdict.is_some() => ways::of(via).verdict,
        (_, Some(Inherited::Racing)) => Some(VerdictKind::ForkExecRace),
        (_, Some(Inherited::Leaked)) => Some(VerdictKind::LeakedFd),
        (_, None) => holder.opened.is_none().then_some(VerdictKind::StillOpen),
    }
}

/// The summary, marked as likely if the holder is known by elimination.
fn likely(culprit: &Holder, summary: String) -> String {
    if culprit.evidence == Some(Evidence::Elimination) {
        return format!(
            "likely: {summary}; this follows only from the kernel's count of writers, which leaves \
             no other known process"
        );
    }
    summary
}

/// The verdict on a holder of which the tracer did not see how it got the fd.
fn unseen(holder: &Holder) -> Verdict {
    let process = name(holder);
    let opened = match &holder.opened {
        Some(opened) => {
            format!("that {} had opened for writing", words::opener(holder, opened))
        }
        None => "open for writing".to_owned(),
    };
    let summary = format!(
        "{process} held the file {opened}; how it got the fd was not seen; {}",
        release("it", holder)
    );
    Verdict {
        kind: VerdictKind::Unexplained,
        summary: likely(holder, summary),
        advice: vec![format!(
            "check the `lost` lines, and what {process} does: if it was forked and has not exec'd yet, this is a fork-exec-race"
        )],
    }
}

/// The verdict where the kernel itself keeps the file open.
fn unheld(incident: &Incident, unheld: &Unheld) -> Verdict {
    let file = match &unheld.opened {
        Some(opened) => {
            // The name of the process is not known, so the thread's name is used.
            let process = who(opened.comm.as_deref(), opened.pid);
            let by = thread(process, opened.pid, opened.tid);
            format!("the file, which {by} had opened for writing,")
        }
        None => "the file".to_owned(),
    };
    let device = unheld.device.as_deref().unwrap_or("?");
    let PinWay { verdict: kind, sentence, .. } = ways::of_place(unheld.place);
    if unheld.place == Place::FileSystem {
        let at = unheld.mount.as_deref().map(|mount| format!(" at {mount}"));
        let device = format!("{device}{}", at.unwrap_or_default());
        let what = fill(sentence, &file, &device);
        // The tracer looked for processes that run the file a moment after the failure.
        let likely = if incident.certain { "" } else { "likely: " };
        let summary = match incident.direction {
            Direction::Write => {
                format!("{likely}{what}; no process on this machine was seen to run the file")
            }
            _ => format!("{what}; no writer on this machine caused it"),
        };
        let advice = advice::of(kind, incident, None, Names::Incident);
        return Verdict { kind, summary, advice };
    }
    Verdict {
        kind,
        summary: format!("{}; no process holds it", fill(sentence, &file, device)),
        advice: advice::of(kind, incident, None, Names::Incident),
    }
}

/// A sentence of [`ways`] with the names filled in.
fn fill(sentence: &str, file: &str, device: &str) -> String {
    words::fill(sentence, |word| match word {
        "file" => Some(file.to_owned()),
        "object" => Some(file.trim_end_matches(',').to_owned()),
        "device" => Some(device.to_owned()),
        _ => None,
    })
}

/// The verdict where the evidence does not decide which process held the file.
fn suspected(incident: &Incident) -> Verdict {
    let suspects: Vec<String> = incident
        .suspects
        .iter()
        .map(|suspect| {
            let who = who(suspect.comm.as_deref(), suspect.pid);
            let why = match suspect.reason {
                Reason::LeftBefore => "released its fd just before the call",
                Reason::LeftDuring => "released the file during the call",
                Reason::CameDuring => "got the file during the call",
                Reason::SeenAfter => "had the file just after the call",
                Reason::OpenUnderWay => "was in a call that may have been opening the file",
                Reason::Other(_) => "may have had the file",
            };
            format!("{who}, which {why}")
        })
        .collect();
    Verdict {
        kind: VerdictKind::Unexplained,
        summary: format!(
            "the evidence does not show which process held the file at the failure; it may have \
             been {}",
            suspects.join(", or ")
        ),
        advice: vec![
            "wait for more failures, most of them are explained; check the `lost` lines, if there are any".to_owned(),
        ],
    }
}

/// The verdict where nothing was found.
#[must_use]
pub fn unexplained(direction: Direction) -> Verdict {
    let (summary, advice) = match direction {
        Direction::Exec | Direction::Other(_) => (
            "no holder was found; it may be an fd in flight in a socket, an io_uring, or a process that opened the file before tracing began and released it during the call",
            "check the `lost` lines, if there are any; start tracing before the processes that write the file",
        ),
        Direction::Write => (
            "no process that runs the file was found: it may have just exited, or the path may now lead to another file",
            "write the new file beside the old one and rename it into place: this works while the old one is running",
        ),
    };
    Verdict {
        kind: VerdictKind::Unexplained,
        summary: summary.to_owned(),
        advice: vec![advice.to_owned()],
    }
}

/// The sort key of holders: the most to blame first.
#[must_use]
pub fn blame(holder: &Holder) -> (u32, u64) {
    let rank = if is_opener(holder) { 0 } else { ways::of(holder.via).blame };
    (rank, holder.start_ns.unwrap_or(0))
}

/// Whether a holder opened the file itself.
fn is_opener(holder: &Holder) -> bool {
    holder.opened.as_ref().is_some_and(|opened| opened.pid == holder.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{How, State},
        output::samples,
    };

    #[test]
    fn the_verdict_follows_from_what_the_holder_did() {
        use VerdictKind::{
            ForkExecRace, LeakedFd, PassedFd, RunningExecutable, SharedMapping, StillOpen,
            Unexplained,
        };
        for (incident, kind) in [
            (samples::race(), ForkExecRace),
            (samples::pending(), ForkExecRace),
            (samples::several(), ForkExecRace),
            (samples::family(), ForkExecRace),
            (samples::leaked(), LeakedFd),
            (samples::still_open(), StillOpen),
            (samples::passed(), PassedFd),
            (samples::unheld(), PassedFd),
            (samples::mapping(), SharedMapping),
            (samples::write_direction(), RunningExecutable),
            (samples::running_for_ever(), RunningExecutable),
            (samples::unexplained(), Unexplained),
        ] {
            assert_eq!(of(&incident).kind, kind, "{incident:#?}");
        }
    }

    /// The kernel skipped the event of a child's fork, or of its exit.
    #[test]
    fn a_summary_claims_nothing_that_was_not_seen() {
        let mut incident = samples::race();
        let holder = &mut incident.holders[0];
        (holder.via, holder.forked, holder.state) = (Via::Unknown, None, State::Running);
        let verdict = of(&incident);
        assert_eq!(verdict.kind, VerdictKind::Unexplained);
        assert!(verdict.summary.contains("demo[4310] held the file"), "{}", verdict.summary);
        assert!(!verdict.summary.contains("before tracing began"), "{}", verdict.summary);

        let mut incident = samples::still_open();
        incident.holders[0].released.as_mut().unwrap().how = How::Unknown;
        let verdict = of(&incident);
        assert_eq!(verdict.kind, VerdictKind::StillOpen);
        assert!(verdict.summary.contains("released the file within"), "{}", verdict.summary);
    }

    /// While the opener has the file open, the child is not the cause.
    #[test]
    fn an_opener_that_still_holds_comes_before_the_child() {
        let mut incident = samples::race();
        incident.holders.extend(samples::still_open().holders);
        incident.holders.sort_by_key(blame);
        assert_eq!(incident.holders[0].pid, 4300);
        assert_eq!(of(&incident).kind, VerdictKind::StillOpen);
    }

    #[test]
    fn the_summary_of_a_race_names_the_child_its_forker_and_the_wait() {
        let verdict = of(&samples::race());
        for part in ["demo[4310]", "demo[4300]", "thread 4305", "thread 4307", "180 µs"] {
            assert!(verdict.summary.contains(part), "no {part} in: {}", verdict.summary);
        }
        assert!(verdict.advice.iter().any(|advice| advice.contains("180 µs")));
        assert!(verdict.advice.iter().any(|advice| advice.contains("does not help: fsync")));
    }

    #[test]
    fn a_holder_by_elimination_is_called_likely() {
        let mut incident = samples::race();
        assert!(!of(&incident).summary.contains("likely"));
        incident.holders[0].evidence = Some(Evidence::Elimination);
        let summary = of(&incident).summary;
        assert!(summary.starts_with("likely: demo[4310] inherited"), "{summary}");
    }

    #[test]
    fn a_release_while_the_call_was_failing_has_no_duration() {
        for after_ns in [0, -5] {
            let mut incident = samples::race();
            incident.holders[0].released.as_mut().unwrap().after_ns = after_ns;
            let summary = of(&incident).summary;
            assert!(summary.ends_with("released the file while the call was failing"), "{summary}");
            assert!(!summary.contains("0 ns"), "{summary}");
        }
    }

    #[test]
    fn the_summary_mentions_a_core_dump_and_a_victim_that_holds_the_file() {
        let mut incident = samples::pending();
        incident.holders[0].state = State::Exiting;
        let verdict = of(&incident);
        assert!(verdict.summary.contains("dumps core"), "{}", verdict.summary);
        let mut incident = samples::race();
        incident.holders[0].pid = incident.victim.pid;
        let verdict = of(&incident);
        assert!(verdict.summary.contains("the process whose exec failed"));
    }

    #[test]
    fn each_place_that_keeps_a_file_without_a_process_has_its_verdict() {
        let cases = [
            (Place::SocketQueue, VerdictKind::PassedFd, "the queue of a unix socket"),
            (Place::IoUring, VerdictKind::StillOpen, "an io_uring keeps the file"),
            (Place::LoopDevice, VerdictKind::LoopDevice, "backs /dev/loop0"),
            (Place::SwapFile, VerdictKind::SwapFile, "active swap file"),
            (Place::BinfmtMisc, VerdictKind::BinfmtMisc, "entry /dev/loop0"),
            (Place::FileSystem, VerdictKind::RefusedByFilesystem, "(/dev/loop0) refused"),
            (Place::Unknown, VerdictKind::Unexplained, "something in the kernel"),
        ];
        for (place, kind, words) in cases {
            let mut incident = samples::unheld();
            incident.unheld[0].place = place;
            incident.unheld[0].device = Some("/dev/loop0".to_owned());
            let verdict = of(&incident);
            assert_eq!(verdict.kind, kind);
            assert!(verdict.summary.contains(words), "{}", verdict.summary);
            assert!(!verdict.advice.is_empty(), "{place:?}");
        }
    }

    /// A process that ran the file may have just exited.
    #[test]
    fn a_file_system_that_refused_a_write_is_called_likely() {
        let mut incident = samples::write_direction();
        incident.holders.clear();
        incident.unheld = samples::unheld().unheld;
        let unheld = &mut incident.unheld[0];
        (unheld.place, unheld.opened) = (Place::FileSystem, None);
        (unheld.device, unheld.mount) = (Some("cifs".to_owned()), Some("/mnt/ci".to_owned()));
        incident.certain = false;
        let verdict = of(&incident);
        let start = "likely: the file system itself (cifs at /mnt/ci) refused the call";
        assert!(verdict.summary.starts_with(start), "{}", verdict.summary);
        assert!(verdict.advice[0].contains("(cifs, mounted at /mnt/ci)"), "{}", verdict.advice[0]);
        incident.direction = Direction::Exec;
        incident.certain = true;
        assert!(of(&incident).summary.starts_with("the file system itself"));
    }

    /// Ending the processes would not help.
    #[test]
    fn the_summary_mentions_a_binfmt_misc_entry_beside_the_runners() {
        let mut incident = samples::write_direction();
        incident.unheld = samples::unheld().unheld;
        incident.unheld[0].place = Place::BinfmtMisc;
        incident.unheld[0].device = Some("qemu-arm".to_owned());
        let verdict = of(&incident);
        assert_eq!(verdict.kind, VerdictKind::RunningExecutable);
        assert!(verdict.summary.contains("(and the binfmt_misc entry qemu-arm keeps it open)"));
    }

    #[test]
    fn the_page_on_verdicts_has_every_kind_and_the_rules() {
        let page = include_str!("../../../../docs/verdicts.md");
        for kind in KINDS {
            let heading = format!("\n## `{}`\n", crate::text::name(kind));
            let (_, paragraph) = page.split_once(&heading).unwrap_or_else(|| panic!("{heading}"));
            let paragraph = paragraph.split("\n## ").next().unwrap_or_default();
            assert!(paragraph.contains("\n> "), "{heading} has no example");
        }
        let moment = format!("{} ms", inherited::MOMENT_NS / 1_000_000);
        assert!(page.contains(&moment), "{moment}");
    }
}
