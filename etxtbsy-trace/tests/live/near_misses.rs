//! Compares each near miss with a race whose children record what they inherited.

use crate::support::{Turn, is_own_machine};
use etxtbsy_trace::event::{NearMiss, Via};
use etxtbsy_workload::{GroundTruth, WonExec};
use std::collections::HashMap;

/// How far a margin may be from what the processes themselves recorded, in nanoseconds: the end of a copy is noted when
/// its exec returns, which is after the process recorded its beginning.
const NEAR_NS: u64 = 50_000;

#[test]
fn what_could_have_failed_is_reported_and_nothing_else() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (truth, trace): (GroundTruth, _) = turn.race("ground-truth", 100);
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    let execs = trace.summary.execs.unwrap();
    assert_eq!(execs.failed, truth.race.failures);
    assert!(execs.total >= truth.race.attempts, "{execs:?}");
    assert!(execs.of_written_files >= truth.race.attempts, "{execs:?}");

    let won: HashMap<(u32, u64), &WonExec> =
        truth.won.iter().map(|won| ((won.victim, won.ino), won)).collect();
    let reported: HashMap<(u32, u64), &NearMiss> = trace
        .near_misses
        .iter()
        .map(|near| ((near.victim.pid, near.file.ino.unwrap()), near))
        .collect();
    let mut wrong = Vec::new();
    for (key, near) in &reported {
        match won.get(key) {
            Some(won) => wrong.extend(faults(truth.race.pid, won, near)),
            None => wrong.push(format!("nobody had inherited it: {near:?}")),
        }
    }
    let sure: Vec<_> =
        won.iter().filter(|(_, won)| won.inheritors.iter().any(|one| one.sure)).collect();
    let missing = sure.iter().filter(|(key, _)| !reported.contains_key(key)).count() as u64;
    let folded = trace.near_misses.iter().map(|near| near.count - 1).sum::<u64>();
    println!(
        "{} near misses reported, {folded} more folded; {} surely were, {missing} of them not reported; {} wrong",
        reported.len(),
        sure.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong[0]);
    if !trace.has_skipped_programs() {
        assert!(missing <= folded + sure.len() as u64 / 1000, "{missing} of {}", sure.len());
    }
    assert!(!reported.is_empty() || is_own_machine(), "{truth:?}");
}

/// The program that an exec replaces waits in the task's work, where a script would be.
#[test]
fn execs_of_a_process_that_has_execd_before_are_counted() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let dir = turn.dir.path().to_str().unwrap();
    let program = "cd \"$0\"; cp /bin/true tool; sh -c 'exec ./tool'";
    let script = "cd \"$0\"; printf '#!/bin/sh\nexit\n' >tool; chmod +x tool; sh -c 'exec ./tool'";
    for script in [program, script] {
        let (_, trace) = turn.run(&[], &["sh", "-c", script, dir]);
        let execs = trace.summary.execs.unwrap();
        assert_eq!((execs.total, execs.of_written_files), (4, 1), "{script}");
    }
}

/// What is wrong with a near miss.
fn faults(pid: u32, won: &WonExec, near: &NearMiss) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |words: String| faults.push(format!("{words}: {won:?}: {near:?}"));
    for holder in &near.holders {
        let Some(known) = won.inheritors.iter().find(|known| known.pid == holder.pid) else {
            fault(format!("{} had no copy, or was reaped before", holder.pid));
            continue;
        };
        let opened = holder.opened.as_ref().map(|by| (by.pid, by.tid));
        let forked = holder.forked.as_ref().map(|by| (by.pid, by.tid));
        if (opened, forked) != (Some((pid, won.writer)), Some((pid, known.forked_by))) {
            fault(format!("opener {opened:?}, forker {forked:?}"));
        }
        if holder.via != Via::Fork {
            fault(format!("via {:?}", holder.via));
        }
    }
    let known = |holder: u32| won.inheritors.iter().find(|known| known.pid == holder);
    if let Some(last) = near.holders.first().and_then(|holder| known(holder.pid)) {
        let least = won.enter_ns.saturating_sub(last.gone_by_ns + NEAR_NS);
        let most = won.enter_ns.saturating_sub(last.before_exec_ns) + NEAR_NS;
        if !(least..=most).contains(&near.margin_ns) {
            fault(format!("the margin is between {least} and {most} ns"));
        }
    }
    faults
}
