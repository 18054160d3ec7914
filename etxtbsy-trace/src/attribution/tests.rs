//! Cases as the kernel side tells them, and what has to come of them.

use super::*;
use crate::ledger::{Drop, Keeper};
use etxtbsy_trace_common::Failure;

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
    Hold { stage: Stage::Released as u32, how: how as u32, released_ns, last, ..*hold }
}

fn in_table(hold: Hold) -> Candidate {
    Candidate { in_table: 1, cloexec: 1, hold, ..Candidate::default() }
}

fn in_works(hold: Hold) -> Candidate {
    Candidate { in_works: 1, hold, ..Candidate::default() }
}

fn gone(hold: Hold) -> Candidate {
    let holder = Holder { ns_pid: hold.tgid, ..Holder::default() };
    Candidate { hold, holder, ..Candidate::default() }
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
        told: true,
        ..Case::default()
    }
}

fn pids(attribution: &Attribution) -> Vec<u32> {
    attribution.holders.iter().map(|held| held.tgid).collect()
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
    let mut case = case(1, vec![in_works(ended(&child, How::CloseOnExec, ENTER - 50_000, 1))]);
    let found = attribute(&case);
    assert_eq!((pids(&found), found.holders[0].state), (vec![CHILD], State::ExecClosing));
    assert_eq!(found.holders[0].released, None, "not before the kernel has dropped it");

    case.dropped.insert((child.file, CHILD), Drop { time_ns: EXIT + 70_000, exiting: false });
    let found = attribute(&case);
    assert_eq!(found.holders[0].released, Some((How::CloseOnExec, EXIT + 70_000)));
}

#[test]
fn a_last_reference_just_let_go_of_is_believed_because_the_kernel_counts_it() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let just = ended(&child, How::CloseOnExec, ENTER - 20_000, 1);
    assert_eq!(pids(&attribute(&case(1, vec![gone(just)]))), [CHILD]);
    // Not the last reference: something else keeps the description open.
    let shared = ended(&child, How::CloseOnExec, ENTER - 20_000, 0);
    assert_eq!(pids(&attribute(&case(1, vec![gone(shared)]))), [0; 0]);
    // Its task has ended since, and may have come to its work during the call.
    let short = Candidate { holder: Holder::default(), ..gone(just) };
    assert_eq!(pids(&attribute(&case(1, vec![short]))), [CHILD]);
    // Its task has ended, and has done its work before.
    let before = ended(&child, How::CloseOnExec, ENTER - SHORT_LIFE_NS - 1, 1);
    let dead = Candidate { holder: Holder::default(), ..gone(before) };
    assert_eq!(pids(&attribute(&case(1, vec![dead]))), [0; 0]);
    // Too long ago.
    let old = ended(&child, How::CloseOnExec, ENTER - DRAIN_NS - 1, 1);
    assert_eq!(pids(&attribute(&case(1, vec![gone(old)]))), [0; 0]);
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
    let closed = ended(&parent, How::Close, ENTER - 30_000, 0);
    let late = inherited(&parent, EXIT + 9_000_000);
    let mut case = case(1, vec![gone(closed)]);
    case.acquired.push(change(late));
    let found = attribute(&case);
    assert_eq!((pids(&found), found.holders[0].state), (vec![CHILD], State::InFork));

    // It was there when the holds were told, a moment after the failure.
    let early = Hold { acquired_ns: EXIT + 9_000, ..late };
    let told = attribute(&self::case(1, vec![gone(closed), in_table(early)]));
    assert_eq!((pids(&told), told.holders[0].state), (vec![CHILD], State::InFork));

    // A parent that still had it open may have been copied after the failure.
    case.candidates = vec![in_table(parent)];
    let found = attribute(&case);
    assert_eq!(pids(&found), [OPENER]);

    // The same address, opened anew: another description.
    case.candidates = vec![gone(closed)];
    case.acquired[0].hold.opened.time_ns = EXIT + 1;
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
fn a_holder_that_let_go_while_the_call_was_failing_is_the_one_if_there_is_no_other() {
    let during = ended(&opened(0xa, 500_000), How::Close, ENTER + 5_000, 1);
    // The count has gone to zero since.
    let found = attribute(&case(0, vec![gone(during)]));
    assert_eq!((found.writers, pids(&found)), (Some(1), vec![OPENER]));

    // Two of them: one did, or both, and nobody can tell.
    let second =
        Hold { file: 0xb, table: 0x1300, tgid: 300, opened: actor(300, ENTER - 400_000), ..during };
    let found = attribute(&case(0, vec![gone(during), gone(second)]));
    assert_eq!((found.writers, found.holders.len()), (None, 0));
}

#[test]
fn a_description_that_was_alone_when_opened_buries_those_before_it() {
    let old = ended(
        &inherited(&opened(0xa, 5_000_000), ENTER - 4_000_000),
        How::CloseOnExec,
        ENTER - 3_000_000,
        1,
    );
    let alone = Hold { alone: 1, ..opened(0xb, 2_000_000) };
    let just = ended(&alone, How::Close, ENTER - 1_000, 1);
    assert_eq!(pids(&attribute(&case(1, vec![gone(old), gone(just)]))), [OPENER]);
    // Had it not been alone, the exec that may be preempted would be the one, as a close is quick.
    let not_alone = Hold { alone: 0, ..ended(&alone, How::Close, ENTER - 100_000, 1) };
    assert_eq!(pids(&attribute(&case(1, vec![gone(old), gone(not_alone)]))), [CHILD]);
}

#[test]
fn a_copy_without_opener_takes_it_from_its_own_description_only() {
    let parent = opened(0xa, 500_000);
    let orphan = Hold { opened: Actor::default(), ..inherited(&parent, ENTER - 200_000) };
    let closed = ended(&parent, How::Close, ENTER - 100_000, 0);
    let found = attribute(&case(1, vec![in_table(orphan), gone(closed)]));
    assert_eq!(found.holders[0].opened, Some(parent.opened));

    // One that had been closed before the child was forked is another use of the address.
    let before = ended(&parent, How::Close, ENTER - 300_000, 1);
    let found = attribute(&case(1, vec![in_table(orphan), gone(before)]));
    assert_eq!((pids(&found), found.holders[0].opened), (vec![CHILD], None));
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

/// Its close was passed over, or is told when it is over (close_range): an end that is told after the
/// failure does not show that it had its fd until then.
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
    // It ended while the holds were being told: at the failure it was there.
    case.candidates.push(gone(ended(&parent, How::Close, EXIT + 300, 0)));
    case.released.clear();
    assert_eq!(pids(&attribute(&case)), [CHILD, OPENER]);
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

/// The fork copied the fd before the exit of its open was seen, and took an earlier description
/// at the same address for it.
#[test]
fn a_copy_with_the_opener_of_an_earlier_description_gets_its_own() {
    let earlier = opened(0xa, 5_000_000);
    let parent = Hold { alone: 1, ..opened(0xa, 500_000) };
    let copy = Hold { opened: earlier.opened, ..inherited(&parent, ENTER - 510_000) };
    let case = case(
        0,
        vec![
            gone(ended(&copy, How::CloseOnExec, ENTER - 150_000, 1)),
            gone(ended(&earlier, How::Close, ENTER - 4_000_000, 1)),
            gone(ended(&parent, How::Close, ENTER - 400_000, 0)),
        ],
    );
    let found = attribute(&case);
    assert_eq!((pids(&found), found.holders[0].opened), (vec![CHILD], Some(parent.opened)));
}

#[test]
fn an_address_that_is_opened_anew_after_the_failure_was_another_description_at_it() {
    let parent = opened(0xa, 500_000);
    let child = inherited(&parent, ENTER - 200_000);
    let again = Hold { acquired_ns: EXIT + 50_000, opened: actor(OPENER, EXIT + 50_000), ..parent };
    let closed = ended(&parent, How::Close, ENTER - 100_000, 0);
    let mut case = case(1, vec![in_table(child), gone(closed)]);
    case.acquired.push(change(again));
    // Told when it is over: a moment late.
    for how in [How::Exit, How::CloseOnExec, How::Dup] {
        case.released = vec![change(ended(&child, how, EXIT + 80_000, 0))];
        let found = attribute(&case);
        assert_eq!((pids(&found), found.is_complete()), (vec![CHILD], true));
        assert_eq!(found.holders[0].opened, Some(parent.opened));
        assert_eq!(found.holders[0].released, Some((how, EXIT + 80_000)));
    }
    // Told before it is done: of something later, and its own end was missed.
    case.released = vec![change(ended(&child, How::Close, EXIT + 80_000, 0))];
    let found = attribute(&case);
    assert_eq!((pids(&found), found.is_complete()), (vec![CHILD], false));
    assert_eq!(found.holders[0].opened, Some(parent.opened));
    assert_eq!(found.holders[0].released, None);
}

#[test]
fn what_came_unseen_from_another_opener_was_passed() {
    let found_fd = Hold { via: Via::Unknown as u32, tgid: CHILD, ..opened(0xa, 500_000) };
    let found = attribute(&case(1, vec![in_table(Hold { acquired_ns: 0, ..found_fd })]));
    assert_eq!((pids(&found), found.holders[0].via), (vec![CHILD], Via::Passed));
    // Its own, or nobody knows whose: no more is said than is known.
    let own = Hold { tgid: OPENER, ..found_fd };
    assert_eq!(attribute(&case(1, vec![in_table(own)])).holders[0].via, Via::Unknown);
    let unknown = Hold { opened: Actor::default(), ..found_fd };
    assert_eq!(attribute(&case(1, vec![in_table(unknown)])).holders[0].via, Via::Unknown);
}

#[test]
fn what_a_child_of_the_openers_has_may_be_of_a_fork_that_was_missed() {
    let parent = opened(0xa, 500_000);
    let child = Hold {
        via: Via::Unknown as u32,
        acquired_ns: 0,
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
    let cloexec = |told: u32| {
        let candidate = Candidate { cloexec: told, ..in_table(opened(0xa, 500_000)) };
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
    // What was told of it is exact.
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
    let mapping = Hold { acquired_ns: 0, ..mapping };
    let mut case = case(1, vec![outlived(0xa), Candidate { open: 1, ..gone(mapping) }]);
    let found = attribute(&case);
    assert_eq!((found.explained, found.holders[0].via), (1, Via::Mapping));
    assert_eq!((found.holders[0].fds.len(), found.holders[0].released), (0, None));
    assert_eq!(found.unheld, []);

    case.dropped.insert((0xa, OPENER), Drop { time_ns: EXIT + 5, exiting: false });
    assert_eq!(attribute(&case).holders[0].released, Some((How::Unmap, EXIT + 5)));
    case.dropped.insert((0xa, OPENER), Drop { time_ns: EXIT + 5, exiting: true });
    assert_eq!(attribute(&case).holders[0].released, Some((How::Exit, EXIT + 5)));
}

#[test]
fn a_description_that_no_process_holds_is_told_with_its_opener() {
    let mut case = case(1, vec![outlived(0xa)]);
    let found = attribute(&case);
    assert_eq!((found.explained, pids(&found)), (0, vec![]));
    assert_eq!(found.unheld.iter().map(|hold| hold.opened.tgid).collect::<Vec<_>>(), [OPENER]);
    assert!(!found.is_complete());

    // A thread of the process that closed the fd sleeps in a call on it.
    case.keepers.insert(0xa, Keeper::Call { tgid: OPENER });
    let found = attribute(&case);
    assert_eq!((found.explained, pids(&found), found.unheld.len()), (1, vec![OPENER], 0));
    assert_eq!(found.holders[0].fds[0].fd, 5);

    // It leaves no room for a guess about another.
    case.keepers.clear();
    let child = inherited(&opened(0xb, 400_000), ENTER - 200_000);
    case.candidates.push(gone(ended(&child, How::CloseOnExec, ENTER - 20_000, 1)));
    assert_eq!(pids(&attribute(&case)), [0; 0]);
}

#[test]
fn a_table_that_outlives_its_opener_belongs_to_those_that_share_it() {
    let hold = opened(0xa, 500_000);
    let sharer = Hold { tgid: CHILD, task: 0x3000, via: Via::Fork as u32, ..hold };
    let alive = |hold: Hold| Candidate { in_table: 1, cloexec: 1, open: 1, ..gone(hold) };
    // The record of the opener, whose task has ended, comes too.
    let mut case = case(1, vec![in_table(hold), alive(sharer)]);
    assert_eq!(pids(&attribute(&case)), [CHILD]);
    case.released.push(change(ended(&hold, How::Close, EXIT + 9, 1)));
    let found = attribute(&case);
    assert_eq!(
        (pids(&found), found.holders[0].released),
        (vec![CHILD], Some((How::Close, EXIT + 9)))
    );
}

#[test]
fn what_let_go_after_the_call_had_it_during_the_call() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    // Its task has ended before it was looked at.
    let late = ended(&child, How::CloseOnExec, EXIT + 9, 1);
    let dead = Candidate { holder: Holder::default(), ..gone(late) };
    assert_eq!(pids(&attribute(&case(1, vec![dead]))), [CHILD]);
    // An exit is told when it is over: it may have been over before the call.
    let exited = gone(ended(&child, How::Exit, EXIT + 9, 0));
    assert_eq!(pids(&attribute(&case(1, vec![exited]))), [CHILD]);
    let other = gone(Hold { file: 0xb, tgid: 300, table: 0x1200, ..exited.hold });
    assert_eq!(pids(&attribute(&case(1, vec![exited, other]))), [0; 0]);
}

#[test]
fn a_file_is_told_from_an_earlier_one_at_its_address() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let just =
        Hold { inode: 1, ino: 7, generation: 3, ..ended(&child, How::CloseOnExec, ENTER - 9, 1) };
    let mut case = case(1, vec![gone(just)]);
    (case.failure.ino, case.failure.generation) = (7, 4);
    assert_eq!(pids(&attribute(&case)), [0; 0]);
    case.failure.generation = 3;
    assert_eq!(pids(&attribute(&case)), [CHILD]);
}

#[test]
fn where_records_were_lost_nothing_is_complete_and_nothing_is_guessed() {
    let child = inherited(&opened(0xa, 500_000), ENTER - 200_000);
    let just = gone(ended(&child, How::CloseOnExec, ENTER - 20_000, 1));
    let mut guess = case(1, vec![just]);
    guess.lost = true;
    assert_eq!(pids(&attribute(&guess)), [0; 0]);
    let mut sure = case(1, vec![in_table(child)]);
    sure.lost = true;
    let found = attribute(&sure);
    assert_eq!((pids(&found), found.is_complete()), (vec![CHILD], false));
}
