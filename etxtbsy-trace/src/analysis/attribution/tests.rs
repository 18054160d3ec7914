//! Cases as the kernel side reports them, and what each must be judged as.

use super::hold_fact::CLOSE_NS;
use super::*;
use crate::analysis::case::{DescriptionClosed, Pin};
use crate::event::State;
use etxtbsy_trace_common::{
    Actor, CLOEXEC_UNKNOWN, Candidate, Change, DRAIN_NS, Drain, Failure, Hold, Holder, How, NO_FD,
    PinnedBy, Quiet, SWAP_FILE, Stage, Via,
};

const ENTER: u64 = 1_000_000_000;
const EXIT: u64 = ENTER + 10_000;
const OPENER: u32 = 100;
const CHILD: u32 = 200;

fn actor(tgid: u32, time_ns: u64) -> Actor {
    Actor { time_ns, tgid, tid: tgid + 1, comm: [0; 16] }
}

/// The opener's own fd, opened some time before the call.
fn opened(file: u64, before_ns: u64) -> Hold {
    let opened = actor(OPENER, ENTER - before_ns);
    Hold {
        file,
        table: 0x1000,
        task: 0x2000,
        acquired_ns: opened.time_ns,
        opened,
        tgid: OPENER,
        fd: 5,
        via: Via::Open as u32,
        stage: Stage::Held as u32,
        ..Hold::default()
    }
}

/// A copy of `origin` in a child that was forked at `forked_ns`.
fn inherited(origin: &Hold, forked_ns: u64) -> Hold {
    Hold {
        table: 0x1100,
        task: 0x2100,
        acquired_ns: forked_ns,
        forked: actor(OPENER, forked_ns),
        tgid: CHILD,
        ppid: OPENER,
        via: Via::Fork as u32,
        ..*origin
    }
}

fn ended(hold: &Hold, how: How, released_ns: u64, last: u32) -> Hold {
    let was_last_reference = last;
    Hold {
        stage: Stage::Released as u32,
        how: how as u32,
        released_ns,
        was_last_reference,
        ..*hold
    }
}

fn in_table(hold: Hold) -> Candidate {
    Candidate { in_table: 1, cloexec: 1, hold, ..Candidate::default() }
}

fn fput_pending(hold: Hold) -> Candidate {
    Candidate { fput_pending: 1, hold, ..Candidate::default() }
}

fn gone(hold: Hold) -> Candidate {
    let holder = Holder { ns_pid: hold.tgid, ..Holder::default() };
    Candidate { hold, holder, ..Candidate::default() }
}

/// A last reference that is being dropped.
fn draining(hold: Hold, drain: Drain) -> Candidate {
    Candidate { drain: drain as u32, ..gone(hold) }
}

/// Another holder's hold, of a description of its own.
fn other(hold: &Hold) -> Hold {
    Hold { file: 0xb, tgid: 300, table: 0x1200, opened: actor(300, ENTER - 400_000), ..*hold }
}

fn change(hold: Hold) -> Change {
    Change { inode: 1, cloexec: 1, hold, ..Change::default() }
}

fn case(writers: i32, candidates: Vec<Candidate>) -> Case {
    Case {
        failure: Failure {
            enter_ns: ENTER,
            exit_ns: EXIT,
            inode: 1,
            writers,
            ..Failure::default()
        },
        candidates,
        reported: true,
        ..Case::default()
    }
}

fn pids(attribution: &Attribution) -> Vec<u32> {
    attribution.holders.iter().map(|held| held.tgid).collect()
}

/// `__fput` gives up the write access before it frees the description.
#[test]
fn what_is_being_dropped_and_not_counted_any_more_is_no_holder() {
    let parent = opened(0xa, 500_000);
    let over = ended(&other(&parent), How::CloseOnExec, ENTER - 1_000, 1);
    let candidates = vec![in_table(parent), draining(over, Drain::UnderWay)];
    let found = attribute(&case(1, candidates.clone()));
    assert_eq!((found.writers, found.explained, pids(&found)), (Some(1), 1, vec![parent.tgid]));
    let found = attribute(&case(2, candidates));
    assert_eq!((found.explained, found.holders.len()), (2, 2));
}

#[test]
fn no_more_is_explained_than_was_counted() {
    let parent = opened(0xa, 500_000);
    let found = attribute(&case(1, vec![in_table(parent), in_table(other(&parent))]));
    assert_eq!((found.writers, found.explained, found.holders.len()), (Some(1), 1, 2));
    assert!(found.contradicted && !found.is_complete());
    let found = attribute(&case(2, vec![in_table(parent), in_table(other(&parent))]));
    assert!(!found.contradicted && found.is_complete());
}

/// Between `do_close_on_exec`, which takes the fd, and the last `fput`, neither a table nor a list of work has it.
#[test]
fn what_an_exec_was_closing_is_shown_by_its_end() {
    let parent = opened(0xa, 500_000);
    let child = inherited(&parent, ENTER - 200_000);
    let closed = ended(&parent, How::Close, ENTER - 100_000, 0);
    let closing = Candidate { open: 1, cloexec: CLOEXEC_UNKNOWN, ..gone(child) };
    let mut case = case(1, vec![closing, gone(closed)]);
    case.released = vec![change(ended(&child, How::CloseOnExec, EXIT + 70_000, 1))];
    let found = attribute(&case);
    assert_eq!((found.writers, found.explained, pids(&found)), (Some(1), 1, vec![CHILD]));
    assert!(found.is_certain());
    let holder = &found.holders[0];
    assert_eq!((holder.state, holder.evidence), (State::ExecClosing, Evidence::Event));
    assert_eq!(holder.released, Some((How::CloseOnExec, EXIT + 70_000)));
    // Another had it after this one; or it ended before.
    for (ended_ns, last) in [(EXIT + 70_000, 0), (EXIT, 1)] {
        case.released = vec![change(ended(&child, How::CloseOnExec, ended_ns, last))];
        assert_eq!(attribute(&case).explained, 0);
    }
}

#[test]
fn a_child_that_has_not_execed_holds_what_its_parent_has_closed() {
    let parent = opened(0xa, 500_000);
    let child = inherited(&parent, ENTER - 200_000);
    let closed = ended(&parent, How::Close, ENTER - 100_000, 0);
    let mut case = case(1, vec![in_table(child), gone(closed)]);
    let found = attribute(&case);
    assert_eq!((found.writers, found.explained, pids(&found)), (Some(1), 1, vec![CHILD]));
    assert_eq!(found.holders[0].state, State::Forked);
    assert_eq!(found.holders[0].opened, Some(parent.opened));
    assert!(!found.is_settled(), "it holds the file still");

    case.released.push(change(ended(&child, How::CloseOnExec, EXIT + 180_000, 1)));
    let found = attribute(&case);
    assert_eq!(found.holders[0].released, Some((How::CloseOnExec, EXIT + 180_000)));
    assert_eq!(found.holders[0].state, State::Forked, "that is what it was at the failure");
    assert!(found.is_settled());
}

#[test]
fn an_exec_that_waits_to_drop_the_file_holds_it() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let mut case = case(1, vec![fput_pending(ended(&child, How::CloseOnExec, ENTER - 50_000, 1))]);
    let found = attribute(&case);
    assert_eq!((pids(&found), found.holders[0].state), (vec![CHILD], State::ExecClosing));
    assert_eq!(found.holders[0].released, None, "not before the kernel has dropped it");

    case.dropped
        .insert((child.file, CHILD), DescriptionClosed { time_ns: EXIT + 70_000, exiting: false });
    let found = attribute(&case);
    assert_eq!(found.holders[0].released, Some((How::CloseOnExec, EXIT + 70_000)));
}

#[test]
fn a_last_reference_that_is_being_dropped_is_evidence() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let just = ended(&child, How::CloseOnExec, ENTER - 20_000, 1);
    let found = attribute(&case(1, vec![draining(just, Drain::UnderWay)]));
    assert_eq!((pids(&found), found.holders[0].evidence), (vec![CHILD], Evidence::TaskWork));
    assert!(found.is_certain());
    // It is freed by now: it is likely, if there is no other.
    let over = draining(just, Drain::None);
    let found = attribute(&case(1, vec![over]));
    assert_eq!((pids(&found), found.is_complete(), found.is_certain()), (vec![CHILD], true, false));
    let found = attribute(&case(1, vec![over, draining(other(&just), Drain::None)]));
    assert_eq!((pids(&found), found.suspects.len()), (vec![], 2));
    // Two were open, or something else is known to have been.
    assert_eq!(pids(&attribute(&case(2, vec![over]))), [0; 0]);
    let holder = in_table(opened(0xb, 400_000));
    assert_eq!(pids(&attribute(&case(1, vec![over, holder]))), [OPENER]);
}

#[test]
fn where_the_kernel_does_not_show_it_a_last_reference_is_named_by_elimination() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let just = ended(&child, How::CloseOnExec, ENTER - 20_000, 1);
    let unclear = |hold| draining(hold, Drain::Unclear);
    let found = attribute(&case(1, vec![unclear(just)]));
    assert_eq!((pids(&found), found.holders[0].evidence), (vec![CHILD], Evidence::Elimination));
    assert_eq!((found.is_complete(), found.is_certain()), (true, false));
    // Two that it can be, and one that it is.
    let found = attribute(&case(1, vec![unclear(just), unclear(other(&just))]));
    assert_eq!((pids(&found), found.explained), (vec![], 0));
    let suspects: Vec<_> = found.suspects.iter().map(|one| (one.tgid, one.reason)).collect();
    assert_eq!(suspects, [(CHILD, Reason::LeftBefore), (300, Reason::LeftBefore)]);
    // One that it can be, and two that it is.
    assert_eq!(pids(&attribute(&case(2, vec![unclear(just)]))), [0; 0]);
    // Too long ago for an exec, and for a close_range, after which the process goes on.
    let old = ended(&child, How::CloseOnExec, ENTER - DRAIN_NS - 1, 1);
    assert_eq!(pids(&attribute(&case(1, vec![unclear(old)]))), [0; 0]);
    let range = ended(&child, How::CloseRange, ENTER - CLOSE_NS - 1, 1);
    assert_eq!(pids(&attribute(&case(1, vec![unclear(range)]))), [0; 0]);
}

#[test]
fn an_opener_that_has_closed_a_passed_fd_is_not_accused() {
    // Somebody else refers to the description: it was not the last reference.
    let closed = ended(&opened(0xa, 500_000), How::Close, ENTER - 10_000, 0);
    let found = attribute(&case(1, vec![gone(closed)]));
    assert_eq!((found.writers, found.explained, found.holders.len()), (Some(1), 0, 0));
    assert!(!found.is_complete());
}

#[test]
fn a_child_that_appears_later_was_being_made_if_its_parent_had_closed_the_file() {
    let parent = opened(0xa, 500_000);
    let late = Hold { left_ns: ENTER - 30_000, ..inherited(&parent, EXIT + 9_000_000) };
    let mut case = case(1, vec![]);
    case.acquired.push(change(late));
    let found = attribute(&case);
    assert_eq!((pids(&found), found.holders[0].state), (vec![CHILD], State::InFork));
    assert_eq!(found.holders[0].evidence, Evidence::Event);
    assert_eq!(found.holders[0].closed_ns, Some(ENTER - 30_000));
    assert!(found.is_certain());

    // It was there when the holds were reported, a moment after the failure.
    let early = Hold { acquired_ns: EXIT + 9_000, ..late };
    let reported = attribute(&self::case(1, vec![in_table(early)]));
    assert_eq!((pids(&reported), reported.holders[0].state), (vec![CHILD], State::InFork));

    // A parent that still had it open, or had it again, may have been copied after the failure.
    case.acquired[0].hold.left_ns = 0;
    assert_eq!(pids(&attribute(&case)), [0; 0]);
    case.acquired[0].hold.left_ns = EXIT + 5;
    assert_eq!(pids(&attribute(&case)), [0; 0]);
}

#[test]
fn every_writer_is_accounted_for_or_the_rest_is_not_explained() {
    let one = opened(0xa, 500_000);
    let other = Hold { file: 0xb, tgid: 300, table: 0x1200, opened: actor(300, ENTER - 9), ..one };
    let dup = Hold { fd: 7, via: Via::Dup as u32, ..one };
    let found = attribute(&case(2, vec![in_table(one), in_table(other), in_table(dup)]));
    assert_eq!((found.explained, pids(&found)), (2, vec![OPENER, 300]));
    assert_eq!(found.holders[0].fds.iter().map(|fd| fd.fd).collect::<Vec<_>>(), [5, 7]);
    assert!(found.is_complete());

    let found = attribute(&case(2, vec![in_table(one)]));
    assert_eq!((found.writers, found.explained, found.is_complete()), (Some(2), 1, false));
}

#[test]
fn a_holder_that_let_go_while_the_call_was_failing_is_likely_if_there_is_no_other() {
    let during = ended(&opened(0xa, 500_000), How::Close, ENTER + 5_000, 1);
    // The count has gone to zero since, or has not yet.
    for count in [0, 1] {
        let found = attribute(&case(count, vec![gone(during)]));
        assert_eq!((found.writers, pids(&found)), (Some(1), vec![OPENER]));
        assert_eq!((found.is_complete(), found.is_certain()), (true, false));
    }

    // Two of them: one did, or both, and nothing shows which.
    let found = attribute(&case(0, vec![gone(during), gone(other(&during))]));
    assert_eq!((found.writers, found.holders.len(), found.suspects.len()), (None, 0, 2));
    // Something that could have shown another was lost, or another may be opening the file.
    let mut blind = case(0, vec![gone(during)]);
    blind.blind = true;
    assert_eq!(pids(&attribute(&blind)), [0; 0]);
    let rival = Candidate { pinned_by: PinnedBy::Opening as u32, tid: 9, ..Candidate::default() };
    let mut rivals = case(1, vec![gone(during), rival]);
    rivals.may_open.insert(9);
    assert_eq!(pids(&attribute(&rivals)), [0; 0]);
    rivals.opening.insert(9);
    let found = attribute(&rivals);
    assert_eq!((found.holders[0].evidence, found.is_certain()), (Evidence::KernelObject, true));
}

/// An exec's close that is noted once the process is gone was over long before; an exit was not.
#[test]
fn whose_process_is_gone_let_go_during_the_call_only_by_its_exit() {
    let hold = inherited(&opened(0xa, 500_000), ENTER - 400_000);
    let named = |how: How| {
        let hold = ended(&hold, how, ENTER + 5_000, 1);
        pids(&attribute(&case(1, vec![Candidate { hold, ..Candidate::default() }])))
    };
    assert_eq!(named(How::CloseOnExec), Vec::<u32>::new());
    assert_eq!(named(How::Exit), [CHILD]);
    // Just before the call, the same.
    let before = ended(&hold, How::CloseOnExec, ENTER - 1_000, 1);
    assert_eq!(pids(&attribute(&case(1, vec![gone(before)]))), [CHILD]);
    let before = Candidate { hold: before, ..Candidate::default() };
    assert_eq!(pids(&attribute(&case(1, vec![before]))), [0; 0]);
}

/// More descriptions than the count are open: one that nobody saw being opened was opened since.
#[test]
fn what_is_of_no_age_is_the_one_too_many() {
    let first = opened(0xa, 500_000);
    let young =
        Hold { opened: Actor::default(), acquired_ns: EXIT + 50, found: 1, ..other(&first) };
    let young = Candidate { quiet: Quiet::Idle as u32, ..in_table(young) };
    let found = attribute(&case(1, vec![in_table(first), young]));
    assert_eq!((pids(&found), found.explained, found.is_complete()), (vec![OPENER], 1, true));
    let found = attribute(&case(2, vec![in_table(first), young]));
    assert_eq!((pids(&found), found.explained), (vec![OPENER, 300], 2));
}

#[test]
fn what_was_opened_during_the_call_is_counted_and_was_not_the_cause() {
    let holder = opened(0xa, 500_000);
    let came = Hold { acquired_ns: ENTER + 5, opened: actor(300, ENTER + 5), ..other(&holder) };
    let found = attribute(&case(2, vec![in_table(holder), in_table(came)]));
    assert_eq!((found.explained, found.is_certain()), (2, true));
    // Without another it is as likely as what was dropped meanwhile.
    let left = gone(ended(&holder, How::Close, ENTER + 4, 1));
    let found = attribute(&case(1, vec![in_table(came), left]));
    assert_eq!((pids(&found), found.suspects.len()), (vec![], 2));
    let found = attribute(&case(1, vec![in_table(came)]));
    assert_eq!((pids(&found), found.is_certain()), (vec![300], false));
    // What was opened after it is none.
    let after = Hold { acquired_ns: EXIT + 5, opened: actor(300, EXIT + 5), ..came };
    assert_eq!(pids(&attribute(&case(1, vec![in_table(holder), in_table(after)]))), [OPENER]);
}

/// An fd that no event brought: found in the table just after the call.
fn found_fd(quiet: Quiet, received_ns: u64) -> Candidate {
    let hold = opened(0xa, 500_000);
    let hold =
        Hold { tgid: CHILD, via: Via::Unknown as u32, found: 1, acquired_ns: EXIT + 50, ..hold };
    Candidate { quiet: quiet as u32, received_ns, ..in_table(hold) }
}

#[test]
fn what_is_found_after_the_call_was_there_before_if_nothing_can_have_brought_it() {
    let evidence = |candidate: Candidate, passed_since_ns: u64| {
        let case = Case { passed_since_ns, ..case(1, vec![candidate]) };
        let found = attribute(&case);
        assert_eq!((pids(&found), found.is_complete()), (vec![CHILD], true));
        found.holders[0].evidence
    };
    assert_eq!(evidence(found_fd(Quiet::Idle, 0), 0), Evidence::FdTable);
    assert_eq!(evidence(found_fd(Quiet::No, 0), ENTER - 9), Evidence::Elimination);
    assert_eq!(evidence(found_fd(Quiet::NotReceiving, 0), 0), Evidence::Elimination);
    assert_eq!(evidence(found_fd(Quiet::NotReceiving, 0), ENTER - 9), Evidence::FdTable);
    assert_eq!(evidence(found_fd(Quiet::NotReceiving, ENTER - 1), ENTER - 9), Evidence::FdTable);
    assert_eq!(
        evidence(found_fd(Quiet::NotReceiving, ENTER + 1), ENTER - 9),
        Evidence::Elimination
    );
    // Found at an earlier failure, and not ended since.
    let mut before = found_fd(Quiet::No, 0);
    before.hold.acquired_ns = ENTER - 5_000;
    assert_eq!(evidence(before, 0), Evidence::FdTable);
}

#[test]
fn references_that_were_not_found_leave_it_incomplete() {
    let mut case = case(1, vec![in_table(opened(0xa, 500_000))]);
    case.references = 1;
    let found = attribute(&case);
    assert_eq!((pids(&found), found.explained, found.is_complete()), (vec![OPENER], 0, false));
    // A child that was being made has it.
    case.acquired.push(change(inherited(&opened(0xa, 500_000), EXIT + 9_000)));
    let found = attribute(&case);
    assert_eq!((pids(&found), found.is_complete()), (vec![OPENER], true));
}

#[test]
fn a_hold_that_ends_while_it_is_told_is_one_hold() {
    let hold = opened(0xa, 500_000);
    let ended = ended(&hold, How::Close, EXIT + 100, 1);
    let found = attribute(&case(1, vec![in_table(hold), gone(ended)]));
    assert_eq!(found.holders.len(), 1);
    assert_eq!(found.holders[0].fds.len(), 1);
    assert_eq!(found.holders[0].released, Some((How::Close, EXIT + 100)));
}

/// Its close was passed over, or is reported when it is over (close_range): an end that is reported after
/// the failure does not show that it had its fd until then.
#[test]
fn a_hold_whose_fd_was_gone_when_it_was_looked_at_ended_before_that() {
    let parent = opened(0xa, 500_000);
    let child = inherited(&parent, ENTER - 200_000);
    let vacant = Candidate { open: 1, ..gone(parent) };
    let mut case = case(1, vec![in_table(child), vacant]);
    for how in [How::Close, How::CloseRange, How::None] {
        case.released = vec![change(ended(&parent, how, EXIT + 31_000_000, 0))];
        let found = attribute(&case);
        assert_eq!((pids(&found), found.is_complete()), (vec![CHILD], true));
    }
}

#[test]
fn an_end_that_was_noticed_later_is_told_as_unseen() {
    let hold = opened(0xa, 500_000);
    let mut case = case(1, vec![in_table(hold)]);
    case.released.push(change(ended(&hold, How::None, EXIT + 90_000, 0)));
    assert_eq!(attribute(&case).holders[0].released, Some((How::None, EXIT + 90_000)));
}

#[test]
fn without_a_busy_file_nothing_is_claimed() {
    let mut case = case(0, vec![]);
    case.failure.inode = 0;
    let found = attribute(&case);
    assert_eq!((found.writers, found.explained, found.is_complete()), (None, 0, false));
}

#[test]
fn what_came_unseen_from_another_opener_was_passed() {
    let via = |tgid: u32, opened: Actor| {
        let mut candidate = found_fd(Quiet::Idle, 0);
        (candidate.hold.tgid, candidate.hold.opened) = (tgid, opened);
        attribute(&case(1, vec![candidate])).holders[0].via
    };
    let opener = actor(OPENER, ENTER - 500_000);
    assert_eq!(via(CHILD, opener), Via::Passed);
    assert_eq!(via(OPENER, opener), Via::Open, "straight into an io_uring, say");
    assert_eq!(via(CHILD, Actor::default()), Via::Unknown);
}

#[test]
fn what_a_child_of_the_openers_has_may_be_of_a_fork_that_was_missed() {
    let parent = opened(0xa, 500_000);
    let child = Hold {
        via: Via::Unknown as u32,
        found: 1,
        start_ns: parent.opened.time_ns + 1,
        ..inherited(&parent, ENTER - 200_000)
    };
    let older = Hold { start_ns: parent.opened.time_ns - 1, ..child };
    for (hold, passed_over, via) in [
        (child, false, Via::Passed),
        (child, true, Via::Unknown),
        (older, true, Via::Passed),
        (Hold { ppid: 1, ..child }, true, Via::Passed),
    ] {
        let case = Case { passed_over, ..case(1, vec![in_table(hold)]) };
        assert_eq!(attribute(&case).holders[0].via, via);
    }
}

#[test]
fn the_mark_of_an_fd_in_the_midst_of_an_exec_is_not_known() {
    let cloexec = |read: u32| {
        let candidate = Candidate { cloexec: read, ..in_table(opened(0xa, 500_000)) };
        attribute(&case(1, vec![candidate])).holders[0].fds[0].cloexec
    };
    assert_eq!([0, 1, CLOEXEC_UNKNOWN].map(cloexec), [Some(false), Some(true), None]);
}

#[test]
fn an_end_that_was_passed_over_is_told_as_what_was_found() {
    let hold = opened(0xa, 500_000);
    let mut case = case(1, vec![in_table(hold)]);
    let released = |case: &Case| attribute(case).holders[0].released;
    assert_eq!(released(&case), None);
    case.gone.insert(hold.place(), EXIT + 7);
    assert_eq!(released(&case), Some((How::None, EXIT + 7)));
    // The reported end is exact.
    case.released.push(change(ended(&hold, How::Close, EXIT + 5, 0)));
    assert_eq!(released(&case), Some((How::Close, EXIT + 5)));
}

/// The opener's own hold, ended, of a description that is open all the same.
fn outlived(file: u64) -> Candidate {
    Candidate { open: 1, ..gone(ended(&opened(file, 500_000), How::Close, ENTER - 100_000, 0)) }
}

#[test]
fn a_mapping_holds_until_the_description_is_closed() {
    let mapping =
        Hold { via: Via::Mapping as u32, fd: NO_FD, table: 0x9000, ..opened(0xa, 500_000) };
    let mapping = Hold { found: 1, acquired_ns: EXIT + 9, ..mapping };
    let mut case = case(1, vec![outlived(0xa), Candidate { open: 1, ..gone(mapping) }]);
    let found = attribute(&case);
    assert_eq!((found.explained, found.holders[0].via), (1, Via::Mapping));
    assert_eq!((found.holders[0].fds.len(), found.holders[0].released), (0, None));
    assert_eq!(found.unheld, []);

    case.dropped.insert((0xa, OPENER), DescriptionClosed { time_ns: EXIT + 5, exiting: false });
    assert_eq!(attribute(&case).holders[0].released, Some((How::Unmap, EXIT + 5)));
    case.dropped.insert((0xa, OPENER), DescriptionClosed { time_ns: EXIT + 5, exiting: true });
    assert_eq!(attribute(&case).holders[0].released, Some((How::Exit, EXIT + 5)));
}

#[test]
fn a_description_that_no_process_holds_is_reported_with_its_opener() {
    let mut case = case(1, vec![outlived(0xa)]);
    let found = attribute(&case);
    assert_eq!((found.explained, pids(&found)), (0, vec![]));
    assert_eq!(found.unheld.iter().map(|one| one.hold.opened.tgid).collect::<Vec<_>>(), [OPENER]);
    assert_eq!((&found.unheld[0].pin, found.is_complete()), (&Pin::Unknown, false));

    // A loop device is backed by the file.
    case.pins = vec![Pin::LoopDevice("/dev/loop0".to_owned())];
    let found = attribute(&case);
    assert_eq!((found.explained, found.is_complete()), (1, true));
    assert_eq!(found.unheld[0].pin, Pin::LoopDevice("/dev/loop0".to_owned()));
    case.pins.clear();

    // A thread of the process that closed the fd is in a call on it.
    let syscall = libc::SYS_flock as i32;
    let kept = Candidate { pinned_by: PinnedBy::Call as u32, syscall, ..outlived(0xa) };
    case.candidates.push(kept);
    let found = attribute(&case);
    assert_eq!((found.explained, pids(&found), found.unheld.len()), (1, vec![OPENER], 0));
    assert_eq!((found.holders[0].fds.len(), found.holders[0].call), (0, Some(syscall)));
    assert_eq!(found.holders[0].evidence, Evidence::KernelObject);
    case.candidates.pop();

    // It lies in a socket's queue, once for each process that has the socket.
    let queued = Candidate { pinned_by: PinnedBy::Queue as u32, ..outlived(0xa) };
    case.candidates.extend([queued, queued]);
    let found = attribute(&case);
    assert_eq!((found.explained, found.unheld.len(), found.is_certain()), (1, 1, true));
    assert_eq!(found.unheld[0].pin, Pin::SocketQueue);
}

/// The kernel's own description of an active swap file has no opener; a writer beside it is a holder.
#[test]
fn a_swap_file_is_kept_by_the_kernel() {
    let mut case = case(1, Vec::new());
    case.failure.inode_flags = SWAP_FILE | 1;
    let found = attribute(&case);
    assert_eq!((found.explained, pids(&found), found.is_certain()), (1, vec![], true));
    assert_eq!(found.unheld, [Unheld { hold: Hold::default(), pin: Pin::SwapFile }]);

    case.failure.writers = 2;
    assert!(!attribute(&case).is_complete());
    case.candidates.push(in_table(opened(0xa, 500_000)));
    let found = attribute(&case);
    assert_eq!((found.explained, pids(&found), found.is_certain()), (2, vec![OPENER], true));
    assert_eq!(found.unheld.len(), 1);

    // Not any more: it is held by who has it open.
    case.failure.writers = 1;
    let found = attribute(&case);
    assert_eq!((found.explained, found.unheld.len(), pids(&found)), (1, 0, vec![OPENER]));
}

#[test]
fn a_table_that_is_shared_belongs_to_each_of_its_users() {
    let hold = opened(0xa, 500_000);
    let sharer = Hold { tgid: CHILD, task: 0x3000, ..hold };
    let mut case = case(1, vec![in_table(hold), in_table(sharer)]);
    case.released.push(change(ended(&hold, How::Close, EXIT + 9, 1)));
    let found = attribute(&case);
    assert_eq!((pids(&found), found.explained), (vec![OPENER, CHILD], 1));
    assert!(found.holders.iter().all(|held| held.released == Some((How::Close, EXIT + 9))));
    assert_eq!(found.holders[1].via, Via::Open, "nobody inherited it");
}

#[test]
fn what_let_go_after_the_call_had_it_during_the_call() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    // Its task has ended before it was looked at.
    let late = ended(&child, How::CloseOnExec, EXIT + 9, 1);
    let dead = Candidate { holder: Holder::default(), ..gone(late) };
    let found = attribute(&case(1, vec![dead]));
    assert_eq!((pids(&found), found.holders[0].evidence), (vec![CHILD], Evidence::Event));
    // An exit is reported when it is over: it may have been over before the call.
    let exited = gone(ended(&child, How::Exit, EXIT + 9, 0));
    let found = attribute(&case(1, vec![exited]));
    assert_eq!((pids(&found), found.is_certain()), (vec![CHILD], false));
    let second = gone(other(&exited.hold));
    assert_eq!(pids(&attribute(&case(1, vec![exited, second]))), [0; 0]);
}

#[test]
fn a_file_is_told_from_an_earlier_one_at_its_address() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let mut case = case(1, vec![in_table(Hold { inode: 1, ino: 7, generation: 3, ..child })]);
    (case.failure.ino, case.failure.generation) = (7, 4);
    assert_eq!(pids(&attribute(&case)), [0; 0]);
    case.failure.generation = 3;
    assert_eq!(pids(&attribute(&case)), [CHILD]);
}

#[test]
fn where_records_were_lost_nothing_is_complete_and_nothing_is_guessed() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let during = gone(ended(&child, How::CloseOnExec, ENTER + 20, 1));
    let mut guess = case(1, vec![during]);
    guess.lost = true;
    assert_eq!(pids(&attribute(&guess)), [0; 0]);
    let mut sure = case(1, vec![in_table(child)]);
    sure.lost = true;
    let found = attribute(&sure);
    assert_eq!((pids(&found), found.is_complete()), (vec![CHILD], false));
}

#[test]
fn an_address_that_was_opened_anew_is_that_of_the_younger_description() {
    let old = fput_pending(ended(&opened(0xa, 500_000), How::CloseOnExec, ENTER - 300_000, 1));
    let young = Hold { tgid: 300, table: 0x1200, opened: actor(300, ENTER - 9), ..opened(0xa, 9) };
    let found = attribute(&case(1, vec![old, in_table(young)]));
    assert_eq!((pids(&found), found.is_certain()), (vec![300], true));
    // What is in a table is open, though an earlier opener was noted for it.
    let other = Hold { tgid: CHILD, table: 0x1300, ..opened(0xa, 500_000) };
    let found = attribute(&case(1, vec![in_table(other), in_table(young)]));
    assert_eq!((pids(&found), found.is_certain()), (vec![CHILD, 300], true));
    assert!(found.holders.iter().all(|held| held.opened == Some(young.opened)));
}

/// Its fd was older than the failure; the hold was being noted while the failure was read.
#[test]
fn a_hold_that_was_being_noted_at_the_failure_was_there() {
    let holder = opened(0xa, 500_000);
    let received = Hold { tgid: 300, table: 0x1200, via: Via::Passed as u32, ..holder };
    let received = Hold { acquired_ns: ENTER - 9, ..received };
    let mut case = case(1, vec![in_table(holder)]);
    case.acquired.push(change(received));
    let found = attribute(&case);
    assert_eq!((pids(&found), found.is_certain()), (vec![OPENER, 300], true));
    assert_eq!(found.holders[1].evidence, Evidence::Event);
}
