//! Verdicts: what an incident comes to, and what to do about it.
//!
//! One type a rule, each in a file of its own; the first that fits speaks. A rule sees the
//! incident as it is written, so that a recorded one can be judged again.

mod fork_exec_race;
mod leaked_fd;
mod passed_fd;
mod running_executable;
mod shared_mapping;
mod still_open;

use crate::lines::{
    Direction, Holder, How, Incident, Place, State, Unheld, Verdict, VerdictKind, Via,
};

/// A rule.
trait Rule {
    /// What it finds.
    const KIND: VerdictKind;
    /// The holder that makes it fit, if one does.
    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder>;
    /// One sentence on it.
    fn summary(&self, incident: &Incident, culprit: &Holder) -> String;
    /// What helps, the best first, and what does not.
    fn advice(&self, incident: &Incident, culprit: &Holder) -> Vec<String>;
}

/// The verdict on an incident.
#[must_use]
pub fn of(incident: &Incident) -> Verdict {
    apply(&running_executable::RunningExecutable, incident)
        .or_else(|| apply(&still_open::StillOpen, incident))
        .or_else(|| apply(&fork_exec_race::ForkExecRace, incident))
        .or_else(|| apply(&passed_fd::PassedFd, incident))
        .or_else(|| apply(&shared_mapping::SharedMapping, incident))
        .or_else(|| apply(&leaked_fd::LeakedFd, incident))
        .or_else(|| incident.holders.first().map(unseen))
        .or_else(|| incident.unheld.first().map(unheld))
        .unwrap_or_else(|| unexplained(incident.direction))
}

fn apply<R: Rule>(rule: &R, incident: &Incident) -> Option<Verdict> {
    let culprit = rule.culprit(incident)?;
    Some(Verdict {
        kind: R::KIND,
        summary: rule.summary(incident, culprit),
        advice: rule.advice(incident, culprit),
    })
}

/// The verdict where a process held the file, and how it came to it was not seen.
fn unseen(holder: &Holder) -> Verdict {
    let process = who(holder.comm.as_deref(), holder.pid);
    let opened = match &holder.opened {
        Some(opened) => format!(
            "that thread {} of {} had opened for writing",
            opened.tid,
            ancestor(holder, opened.pid)
        ),
        None => "open for writing".to_owned(),
    };
    Verdict {
        kind: VerdictKind::Unexplained,
        summary: format!(
            "{process} held the file {opened}, {}; how it came to the fd was not seen",
            release(holder)
        ),
        advice: vec![format!(
            "look at the `lost` lines, and at what {process} does: if it was forked and has not exec'd yet, this is a fork-exec race"
        )],
    }
}

/// The verdict where no process holds the file, but it is open all the same.
fn unheld(unheld: &Unheld) -> Verdict {
    let opened = match &unheld.opened {
        Some(opened) => format!(
            "the description that thread {} of {} opened for writing",
            opened.tid,
            who(opened.comm.as_deref(), opened.pid)
        ),
        None => "a description that was open for writing".to_owned(),
    };
    let (kind, place, advice) = match unheld.place {
        Place::SocketQueue => (
            VerdictKind::PassedFd,
            "lies in the queue of a unix socket, sent and not received yet".to_owned(),
            "have the other end receive the fd and close it before the file is executed; or send one that was opened read-only",
        ),
        Place::LoopDevice => (
            VerdictKind::Unexplained,
            format!("backs the loop device {}", unheld.device.as_deref().unwrap_or("?")),
            "detach the loop device (losetup -d), or set it up read-only (losetup -r)",
        ),
        Place::IoUring => (
            VerdictKind::StillOpen,
            "is kept by an io_uring".to_owned(),
            "unregister the file from the io_uring, or wait for the completion of its requests, before the file is executed",
        ),
        Place::SwapFile => (
            VerdictKind::SwapFile,
            "is an active swap file".to_owned(),
            "end swapping to it first: swapoff",
        ),
        Place::BinfmtMisc => (
            VerdictKind::BinfmtMisc,
            format!("is kept open by the binfmt_misc entry {}", unheld.device.as_deref().unwrap_or("?")),
            "remove the entry first: echo -1 into its file below /proc/sys/fs/binfmt_misc",
        ),
        Place::FileSystem => (
            VerdictKind::RefusedByFilesystem,
            format!("was refused by its file system, {}", unheld.device.as_deref().unwrap_or("?")),
            "look for the holder on the side that serves the file system",
        ),
        Place::Unknown => (
            VerdictKind::Unexplained,
            "was open, though no process had it: it was in flight in the queue of a socket, or held by the kernel".to_owned(),
            "look for what the process that opened it gave the fd to: a socket, an io_uring, a device",
        ),
    };
    Verdict {
        kind,
        summary: format!("{opened} {place}; no process holds it"),
        advice: vec![advice.to_owned()],
    }
}

/// The verdict where nothing was found.
#[must_use]
pub fn unexplained(direction: Direction) -> Verdict {
    let (summary, advice) = match direction {
        Direction::Exec => (
            "no process was seen to hold the file; something else may: an fd in flight in a socket, an io_uring, or a process that had it before tracing began and let go just then",
            "look at the `lost` lines, if there are any; start tracing before the processes that write the file",
        ),
        Direction::Write => (
            "no process was found that runs the file: it may have ended just then, or the path leads elsewhere by now",
            "write the new file beside it and rename it into place: that works whoever runs the old one",
        ),
    };
    Verdict {
        kind: VerdictKind::Unexplained,
        summary: summary.to_owned(),
        advice: vec![advice.to_owned()],
    }
}

/// Sorts holders: those to blame first.
#[must_use]
pub fn blame(holder: &Holder) -> (u32, u64) {
    let rank = match (holder.via, is_opener(holder)) {
        (_, true) => 0,
        (Via::Fork, _) => 1,
        (Via::Dup | Via::Passed | Via::Mapping | Via::Running, _) => 2,
        (Via::Open | Via::Unknown, _) => 3,
    };
    (rank, holder.start_ns.unwrap_or(0))
}

/// Whether a holder opened the file itself.
fn is_opener(holder: &Holder) -> bool {
    holder.opened.as_ref().is_some_and(|opened| opened.pid == holder.pid)
}

/// Whether a holder is a child that has not exec'd since its fork, and let go in the end: not by its
/// own end alone, if an exec would have left it the file all the same.
fn is_racing(holder: &Holder) -> bool {
    holder.via == Via::Fork
        && !is_opener(holder)
        && match holder.state {
            State::InFork | State::ExecClosing => true,
            State::Exiting => holder.released.is_some(),
            State::Forked => holder.released.as_ref().is_some_and(|released| {
                let kept = holder.fds.iter().all(|fd| fd.cloexec == Some(false));
                !matches!(released.how, How::Exit | How::Unknown) || !kept
            }),
            State::Running => false,
        }
}

/// `comm[pid]`.
fn who(comm: Option<&str>, pid: u32) -> String {
    format!("{}[{pid}]", comm.unwrap_or("?"))
}

/// `comm[pid]` of a process above a holder. (The threads that acted have names of their own.)
fn ancestor(holder: &Holder, pid: u32) -> String {
    let found = holder.ancestors.iter().find(|ancestor| ancestor.pid == pid);
    who(found.and_then(|ancestor| ancestor.comm.as_deref()), pid)
}

/// A time that people can read: `180 µs`.
fn span(ns: u64) -> String {
    crate::output::time::span(ns)
}

/// How a holder let go, in words.
fn release(holder: &Holder) -> String {
    let Some(released) = &holder.released else { return "and holds it still".to_owned() };
    let how = match released.how {
        How::Close => "closed it",
        How::CloseOnExec => "exec'd",
        How::Dup => "put another file in its place",
        How::Exit => "ended",
        How::Unmap if holder.via == Via::Running => "ran another program",
        How::Unmap => "unmapped it",
        How::Unknown => {
            let within = span(released.after_ns.max(0).unsigned_abs());
            return format!("and let go unseen, within {within} of the failure");
        }
    };
    match u64::try_from(released.after_ns) {
        Ok(after) => format!("and {how} {} after the failure", span(after)),
        Err(_) => format!("and {how} while the call was failing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn incidents_are_judged_by_what_their_holders_were_doing() {
        for incident in [
            samples::race(),
            samples::leaked(),
            samples::still_open(),
            samples::unexplained(),
            samples::several(),
        ] {
            assert_eq!(of(&incident).kind, incident.verdict.kind, "{incident:#?}");
        }
    }

    /// A child that never gets to its exec is no race, however young.
    #[test]
    fn a_child_that_does_not_let_go_has_a_leaked_fd() {
        let mut incident = samples::race();
        incident.holders[0].state = State::Forked;
        assert_eq!(of(&incident).kind, VerdictKind::ForkExecRace);
        incident.holders[0].released = None;
        assert_eq!(of(&incident).kind, VerdictKind::LeakedFd);
    }

    /// A daemon that is caught before its exec, which it outlives with the file: no race either.
    #[test]
    fn a_child_whose_exec_would_keep_the_fd_has_a_leaked_one() {
        let mut incident = samples::race();
        incident.holders[0].state = State::Forked;
        incident.holders[0].released.as_mut().unwrap().how = How::Exit;
        assert_eq!(of(&incident).kind, VerdictKind::ForkExecRace);
        incident.holders[0].fds[0].cloexec = Some(false);
        assert_eq!(of(&incident).kind, VerdictKind::LeakedFd);
        incident.holders[0].released.as_mut().unwrap().how = How::Close;
        assert_eq!(of(&incident).kind, VerdictKind::ForkExecRace);
    }

    /// The kernel has passed over the fork of a child, or its end: no more is said than is known.
    #[test]
    fn what_was_not_seen_is_not_said() {
        let mut incident = samples::race();
        let holder = &mut incident.holders[0];
        (holder.via, holder.forked) = (Via::Unknown, None);
        let verdict = of(&incident);
        assert_eq!(verdict.kind, VerdictKind::Unexplained);
        assert!(verdict.summary.contains("demo[4310] held the file"), "{}", verdict.summary);
        assert!(!verdict.summary.contains("before tracing began"), "{}", verdict.summary);

        let mut incident = samples::still_open();
        incident.holders[0].released.as_mut().unwrap().how = How::Unknown;
        let verdict = of(&incident);
        assert_eq!(verdict.kind, VerdictKind::StillOpen);
        assert!(verdict.summary.contains("let go unseen, within"), "{}", verdict.summary);

        let mut incident = samples::race();
        incident.holders[0].state = State::Forked;
        incident.holders[0].released.as_mut().unwrap().how = How::Unknown;
        assert_eq!(of(&incident).kind, VerdictKind::ForkExecRace);
        incident.holders[0].fds[0].cloexec = Some(false);
        assert_eq!(of(&incident).kind, VerdictKind::LeakedFd);
    }

    /// As long as the opener has the file open, the child beside it is not the cause.
    #[test]
    fn an_opener_that_still_holds_comes_before_the_child() {
        let mut incident = samples::race();
        incident.holders.extend(samples::still_open().holders);
        incident.holders.sort_by_key(blame);
        assert_eq!(incident.holders[0].pid, 4300);
        assert_eq!(of(&incident).kind, VerdictKind::StillOpen);
    }

    #[test]
    fn the_sentence_names_the_child_its_forker_and_the_wait() {
        let verdict = of(&samples::race());
        for part in ["demo[4310]", "demo[4300]", "thread 4305", "thread 4307", "180 µs"] {
            assert!(verdict.summary.contains(part), "no {part} in: {}", verdict.summary);
        }
        assert!(verdict.advice.iter().any(|advice| advice.contains("180 µs")));
        assert!(verdict.advice.iter().any(|advice| advice.contains("no help: fsync")));
    }
}
