//! Whether a process that inherited a write fd is on its way to an exec, or keeps the fd.
//!
//! Only two facts count: the state at the failure, and whether the process released the file within
//! [`MOMENT_NS`] of its fork. An incident is written when all holders have released the file, or a
//! second after the failure, so neither fact depends on when the line is written.

use super::is_opener;
use crate::analysis::programs;
use crate::event::{Fd, Holder, How, Incident, Runtime, State, Via};

/// How long a child may take from its fork until it has closed what it inherited. A JVM's spawn
/// helper takes a few milliseconds, and ten times that on a busy machine.
pub(super) const MOMENT_NS: u64 = 500_000_000;
/// What a process with an inherited fd did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inherited {
    /// It was on its way to an exec that takes the fd away.
    Racing,
    /// It keeps the fd, or kept it until it exited.
    Leaked,
}

/// What a holder did with an fd that it inherited; `None` if it did not inherit one.
pub(super) fn of(incident: &Incident, holder: &Holder) -> Option<Inherited> {
    let inherited = matches!(holder.via, Via::Fork | Via::Dup | Via::Open) && !is_opener(holder);
    inherited.then(
        || {
            if is_racing(incident, holder) { Inherited::Racing } else { Inherited::Leaked }
        },
    )
}

fn is_racing(incident: &Incident, holder: &Holder) -> bool {
    let fork = holder.via == Via::Fork;
    let child = fork && matches!(holder.state, State::InFork | State::Forked);
    // It exits without an exec: an exec would have closed a close-on-exec fd.
    let ending = fork && holder.state == State::Exiting;
    // The exec took the fd.
    holder.state == State::ExecClosing
        || (child || ending) && !holder.fds.iter().any(survives_exec)
        || programs::is_helper(holder)
        // It becomes a helper.
        || child && super::advice::runtime(incident, Some(holder)) == Some(Runtime::Jvm)
        || closes_within_a_moment(holder)
        // Whether an exec would have closed the fd is not known, and there was none.
        || ending && holder.fds.iter().all(|fd| fd.cloexec.is_none()) && is_released_within_a_moment(holder)
}

/// Whether an exec leaves an fd open. Its open flags count if it was gone before anyone looked.
fn survives_exec(fd: &Fd) -> bool {
    !fd.cloexec.unwrap_or_else(|| fd.flags.iter().any(|flag| flag == "O_CLOEXEC"))
}

/// Whether it closed the fd, or an exec did, within a moment of its fork.
fn closes_within_a_moment(holder: &Holder) -> bool {
    let how = holder.released.as_ref().map(|released| released.how);
    matches!(how, Some(How::Close | How::CloseOnExec | How::Dup))
        && is_released_within_a_moment(holder)
}

/// Whether it released the file within a moment of its fork.
fn is_released_within_a_moment(holder: &Holder) -> bool {
    let Some(released) = &holder.released else { return false };
    let forked_ns = holder.forked.as_ref().map(|forked| forked.time_ns).or(holder.start_ns);
    forked_ns.is_some_and(|from| released.time_ns.saturating_sub(from) <= MOMENT_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Released, output::samples};

    const MS: u64 = 1_000_000;

    /// A child of the opener, forked 1 ms before the failure, that releases the file as `end` says,
    /// counted from its fork.
    fn child(state: State, cloexec: Option<bool>, end: Option<(How, u64)>) -> Incident {
        let mut incident = samples::race();
        let time_ns = incident.time_ns;
        let holder = &mut incident.holders[0];
        holder.state = state;
        holder.fds[0].cloexec = cloexec;
        let flags: &[&str] =
            if cloexec == Some(true) { &["O_WRONLY", "O_CLOEXEC"] } else { &["O_WRONLY"] };
        holder.fds[0].flags = flags.iter().map(ToString::to_string).collect();
        let forked_ns = time_ns - MS;
        holder.forked.as_mut().unwrap().time_ns = forked_ns;
        holder.released = end.map(|(how, ns)| Released {
            how,
            time_ns: forked_ns + ns,
            after_ns: (forked_ns + ns).cast_signed() - time_ns.cast_signed(),
            exec: None,
            exec_b64: None,
        });
        incident
    }

    /// The table of docs/verdicts.md.
    #[test]
    fn a_child_races_or_leaks_by_what_it_does() {
        use How::{Close, CloseOnExec, Dup, Exit, Unknown};
        use Inherited::{Leaked, Racing};
        use State::{ExecClosing, Exiting, Forked, InFork, Running};
        let long = 2_500 * MS;
        let cases = [
            // A close-on-exec fd in a child that has not exec'd: the race, however long.
            (Forked, Some(true), None, Racing),
            (Forked, Some(true), Some((CloseOnExec, MS)), Racing),
            (Forked, Some(true), Some((CloseOnExec, long)), Racing),
            (Forked, Some(true), Some((Exit, long)), Racing),
            (Forked, Some(true), Some((Unknown, long)), Racing),
            (InFork, Some(true), None, Racing),
            (Exiting, Some(true), None, Racing),
            (Exiting, Some(true), Some((Exit, MS)), Racing),
            // Its exec took the fd.
            (ExecClosing, Some(true), None, Racing),
            (ExecClosing, None, Some((CloseOnExec, long)), Racing),
            // An fd that an exec leaves open: a race only if the child closes it within a moment.
            (Forked, Some(false), Some((Close, 3 * MS)), Racing),
            (Forked, Some(false), Some((Close, MOMENT_NS)), Racing),
            (Forked, Some(false), Some((Close, MOMENT_NS + 1)), Leaked),
            (Forked, Some(false), Some((Dup, 3 * MS)), Racing),
            (Forked, Some(false), Some((Exit, 3 * MS)), Leaked),
            (Forked, Some(false), Some((Unknown, 3 * MS)), Leaked),
            (Forked, Some(false), None, Leaked),
            (Forked, None, None, Leaked),
            (InFork, Some(false), None, Leaked),
            (InFork, Some(false), Some((Close, 3 * MS)), Racing),
            (Exiting, Some(false), Some((Exit, 3 * MS)), Leaked),
            // For instance, its exec failed, and the fd's flag was not seen.
            (Exiting, None, Some((Exit, 3 * MS)), Racing),
            (Exiting, None, Some((Exit, long)), Leaked),
            // It has exec'd, and has it still.
            (Running, Some(false), Some((Close, 3 * MS)), Racing),
            (Running, Some(false), Some((CloseOnExec, 3 * MS)), Racing),
            (Running, Some(false), Some((Close, long)), Leaked),
            (Running, Some(false), Some((Exit, 3 * MS)), Leaked),
            (Running, Some(false), None, Leaked),
            // It has set FD_CLOEXEC since, as Node does.
            (Running, Some(true), None, Leaked),
        ];
        for (state, cloexec, end, wanted) in cases {
            let incident = child(state, cloexec, end);
            let found = of(&incident, &incident.holders[0]);
            assert_eq!(found, Some(wanted), "{state:?} {cloexec:?} {end:?}");
        }
    }

    /// One child holds the file for 2.5 s: the line can be written before it releases the file.
    #[test]
    fn the_kind_does_not_depend_on_when_the_line_was_written() {
        for (cloexec, how) in [(true, How::CloseOnExec), (false, How::Close), (false, How::Exit)] {
            let kind = |end| {
                let incident = child(State::Forked, Some(cloexec), end);
                super::super::of(&incident).kind
            };
            assert_eq!(kind(None), kind(Some((how, 2_500 * MS))), "{cloexec} {how:?}");
        }
    }

    #[test]
    fn a_spawn_helper_is_on_its_way_to_an_exec() {
        let mut incident = child(State::Running, Some(false), None);
        let holder = &mut incident.holders[0];
        (holder.exe, holder.comm) = (None, Some("jspawnhelper".to_owned()));
        assert_eq!(of(&incident, &incident.holders[0]), Some(Inherited::Racing));
        let holder = &mut incident.holders[0];
        holder.exe = Some("/usr/lib/jvm/java-17/lib/jspawnhelper".to_owned());
        holder.comm = Some("x".to_owned());
        assert_eq!(of(&incident, &incident.holders[0]), Some(Inherited::Racing));
        // The child that is about to become one.
        let mut incident = child(State::Forked, Some(false), None);
        incident.holders[0].opened.as_mut().unwrap().runtime = Some(Runtime::Jvm);
        assert_eq!(of(&incident, &incident.holders[0]), Some(Inherited::Racing));
    }
}
