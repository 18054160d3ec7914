//! An exec that succeeded: whether it may have failed, and who would have made it.
//!
//! It may have if another process had a copy of a write fd of the file, by a fork, since the file was last opened
//! for writing. Left out is what cannot have been otherwise, and what was meant: see [`judge`]. A false alarm is worse
//! than silence.

use etxtbsy_trace_common::{Candidate, How, NEAR_MISS_NS, Stage, TextOf, Via};

use super::{
    attribution::{Held, HeldFd},
    case::Case,
    incident::{World, busy_file, holder, rfc3339, victim},
    verdict,
};
use crate::event::{Direction, Evidence, Incident, NearMiss, State, bytes::maybe_text};

/// The last of stdin, stdout and stderr: what a child has there was given to it.
const STDERR: u32 = 2;

/// A near miss in the shape of an incident, for those who show both alike. Its verdict is [`verdict::near_miss`].
#[must_use]
pub fn as_incident(near: NearMiss) -> Incident {
    let NearMiss { time, time_ns, path, path_b64, file, victim, holders, margin_ns, run, .. } =
        near;
    let mut incident = Incident {
        id: 0,
        time,
        time_ns,
        direction: Direction::Exec,
        syscall: "execve".to_owned(),
        errno: String::new(),
        path,
        path_b64,
        file,
        victim,
        holders,
        unheld: Vec::new(),
        suspects: Vec::new(),
        explained: 0,
        complete: true,
        certain: true,
        repaired: None,
        left_out: None,
        run,
        verdict: verdict::unexplained(Direction::Exec),
    };
    incident.verdict = verdict::near_miss(&incident, margin_ns);
    incident
}

/// Whether an incident is a near miss in its shape.
#[must_use]
pub fn is_near_miss(incident: &Incident) -> bool {
    // An incident that was read has an errno.
    incident.errno.is_empty()
}

/// What makes an exec a near miss.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Who had copies with which it would have failed, the last to release its own first.
    held: Vec<Held>,
    /// By how much it missed failing, in nanoseconds.
    margin_ns: u64,
}

/// The line about a case that is a near miss.
#[must_use]
pub fn build(case: &Case, judged: &Judged, world: &World<'_>) -> NearMiss {
    let failure = &case.failure;
    let (path, path_b64) = maybe_text(case.text(TextOf::Path));
    NearMiss {
        time: rfc3339(world.realtime_offset_ns, failure.exit_ns),
        time_ns: failure.exit_ns,
        path,
        path_b64,
        file: busy_file(case, None, world),
        victim: victim(case, world),
        holders: judged.held.iter().map(|held| holder(held, case, world)).collect(),
        margin_ns: judged.margin_ns,
        count: 1,
        run: None,
    }
}

/// Judges a case, an exec's own record and copies that ended before it. `None` if it is no near miss.
#[must_use]
pub fn judge(case: &Case) -> Option<Judged> {
    let failure = &case.failure;
    let is_recent = failure.last_open_ns != 0
        && failure.last_open_ns.saturating_add(NEAR_MISS_NS) >= failure.enter_ns;
    if case.lost || !is_recent {
        return None;
    }
    let mut copies: Vec<&Candidate> =
        case.candidates.iter().filter(|copy| is_in_the_way(copy, case)).collect();
    copies.sort_by_key(|copy| std::cmp::Reverse(copy.hold.released_ns));
    let last_ns = copies.first()?.hold.released_ns;
    let mut held: Vec<Held> = Vec::new();
    for copy in copies {
        let hold = &copy.hold;
        let fd = HeldFd { fd: hold.fd, flags: hold.flags, cloexec: None };
        match held.iter_mut().find(|held| held.tgid == hold.tgid) {
            Some(held) => held.fds.push(fd),
            None => held.push(of_copy(copy, fd)),
        }
    }
    Some(Judged { held, margin_ns: failure.enter_ns.saturating_sub(last_ns) })
}

/// Whether a copy could have made the exec fail. Not one
/// - in the process that opened the file, or that executes it;
/// - that ended before the file was last opened for writing, or whose end was not seen;
/// - that a program kept as its stdin, stdout or stderr: it was meant to write;
/// - whose process had been reaped before the process that executes the file was forked, or by the thread that
///   executes it, through any chain of waits;
/// - whose process released it and then forked the one that executes the file.
fn is_in_the_way(copy: &Candidate, case: &Case) -> bool {
    let (hold, failure) = (&copy.hold, &case.failure);
    let was_given = hold.execed != 0 && hold.fd <= STDERR;
    let is_reaped =
        copy.reaped_by_victim != 0 || copy.reaped_ns != 0 && copy.reaped_ns <= failure.start_ns;
    let forked_victim = hold.tgid == failure.ppid && hold.released_ns <= failure.start_ns;
    hold.via() == Some(Via::Fork)
        && hold.stage() == Some(Stage::Released)
        && hold.how().is_some_and(|how| how != How::None)
        && hold.opened.time_ns != 0
        && hold.tgid != hold.opened.tgid
        && hold.tgid != failure.tgid
        && (failure.last_open_ns..=failure.exit_ns).contains(&hold.released_ns)
        && (hold.ino, hold.generation) == (failure.ino, failure.generation)
        && !was_given
        && !is_reaped
        && !forked_victim
}

/// The process that had a copy.
fn of_copy(copy: &Candidate, fd: HeldFd) -> Held {
    let hold = &copy.hold;
    let seen = (copy.holder.ns_pid != 0).then_some(copy.holder);
    let start_ns = seen.map_or(0, |seen| seen.start_ns);
    let how = hold.how().unwrap_or(How::None);
    Held {
        tgid: hold.tgid,
        ppid: hold.ppid,
        start_ns: if start_ns == 0 { hold.start_ns } else { start_ns },
        fds: vec![fd],
        via: Via::Fork,
        evidence: Evidence::Event,
        call: None,
        state: match how {
            How::CloseOnExec => State::ExecClosing,
            How::Exit => State::Exiting,
            _ if hold.execed == 0 => State::Forked,
            _ => State::Running,
        },
        execed: hold.execed != 0,
        opened: Some(hold.opened),
        closed_ns: (copy.closed_ns != 0).then_some(copy.closed_ns),
        forked: (hold.forked.time_ns != 0).then_some(hold.forked),
        released: Some((how, hold.released_ns)),
        seen,
    }
}

#[cfg(test)]
mod tests {
    use etxtbsy_trace_common::{Actor, Failure, Hold};

    use super::*;

    /// Process 1 opened the file at 100 and forked 2 at 110, which released its copy at 150. Process 3, forked at
    /// 160, executed it from 200 to 210.
    fn near() -> Case {
        let failure = Failure {
            enter_ns: 200,
            exit_ns: 210,
            start_ns: 160,
            last_open_ns: 100,
            tgid: 3,
            ppid: 1,
            ..Failure::default()
        };
        Case { failure, candidates: vec![copy()], succeeded: true, ..Case::default() }
    }

    fn copy() -> Candidate {
        let hold = Hold {
            tgid: 2,
            ppid: 1,
            fd: 5,
            opened: Actor { time_ns: 100, tgid: 1, tid: 1, ..Actor::default() },
            forked: Actor { time_ns: 110, tgid: 1, tid: 9, ..Actor::default() },
            acquired_ns: 110,
            released_ns: 150,
            via: Via::Fork as u32,
            how: How::CloseOnExec as u32,
            stage: Stage::Released as u32,
            ..Hold::default()
        };
        Candidate { hold, ..Candidate::default() }
    }

    fn changed(change: impl FnOnce(&mut Case)) -> Option<(Vec<u32>, u64)> {
        let mut case = near();
        change(&mut case);
        let Judged { held, margin_ns } = judge(&case)?;
        Some((held.iter().map(|one| one.tgid).collect(), margin_ns))
    }

    #[test]
    fn a_copy_that_ended_before_the_exec_is_a_near_miss() {
        assert_eq!(changed(|_| {}), Some((vec![2], 50)));
    }

    #[test]
    fn a_release_during_the_exec_has_no_margin() {
        assert_eq!(changed(|case| case.candidates[0].hold.released_ns = 205), Some((vec![2], 0)));
    }

    #[test]
    fn the_last_release_counts() {
        let more = |case: &mut Case| {
            let mut other = copy();
            other.hold.tgid = 4;
            other.hold.released_ns = 190;
            case.candidates.push(other);
        };
        assert_eq!(changed(more), Some((vec![4, 2], 10)));
    }

    #[test]
    fn what_cannot_have_been_otherwise_is_none() {
        let hold = |change: fn(&mut Hold)| changed(|case| change(&mut case.candidates[0].hold));
        assert_eq!(hold(|hold| hold.tgid = 3), None, "the process that executes the file");
        assert_eq!(hold(|hold| hold.tgid = 1), None, "the opener");
        assert_eq!(hold(|hold| hold.released_ns = 99), None, "before the last open");
        assert_eq!(hold(|hold| hold.via = Via::Passed as u32), None, "not by a fork");
        assert_eq!(hold(|hold| hold.how = How::None as u32), None, "its end was not seen");
        assert_eq!(hold(|hold| hold.ino = 7), None, "another file");
        assert_eq!(changed(|case| case.candidates[0].reaped_ns = 160), None, "reaped before");
        assert_eq!(changed(|case| case.candidates[0].reaped_by_victim = 1), None, "by the thread");
        assert_eq!(changed(|case| case.failure.ppid = 2), None, "it forked the victim");
        assert_eq!(changed(|case| case.failure.last_open_ns = 0), None, "not opened lately");
        assert_eq!(changed(|case| case.lost = true), None, "its records are not complete");
    }

    #[test]
    fn a_reaping_that_came_too_late_orders_nothing() {
        assert_eq!(changed(|case| case.candidates[0].reaped_ns = 161), Some((vec![2], 50)));
    }

    #[test]
    fn a_program_that_was_given_the_file_was_meant_to_write() {
        let given = |fd| {
            changed(move |case| {
                case.candidates[0].hold.execed = 1;
                case.candidates[0].hold.fd = fd;
            })
        };
        assert_eq!(given(1), None);
        assert_eq!(given(5), Some((vec![2], 50)), "a leak");
    }

    #[test]
    fn an_exec_long_after_the_last_open_is_none() {
        let late = |case: &mut Case| {
            case.failure.enter_ns = 100 + NEAR_MISS_NS + 1;
            case.failure.exit_ns = case.failure.enter_ns + 10;
        };
        assert_eq!(changed(late), None);
    }
}
