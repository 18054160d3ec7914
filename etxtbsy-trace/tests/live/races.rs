//! The races: every failure that the workload counted is reported and explained.

use crate::support::{
    Process, Trace, Turn, WaitingRace, assert_complete, has_too_few, is_own_machine, tracer,
};
use etxtbsy_trace::event::{Direction, Incident, Role, VerdictKind, Via};
use etxtbsy_workload::Race;

#[test]
fn go22315() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (race, trace) = turn.race("go22315", 10);
    assert_explained(&race, &trace);
}

#[test]
fn rust114554() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (race, trace) = turn.race("rust114554", 10);
    assert_explained(&race, &trace);
}

#[test]
fn go22315_started_before_the_tracer() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let race = WaitingRace::start(Process::start);
    let output = turn.output();
    let pid = race.0.pid().to_string();
    let tracer = Process::start(tracer().arg("-o").arg(&output).args(["--json", "--pid"]).arg(pid));
    let (race, shown) = race.traced_by(tracer);
    let trace = Trace::parse(&shown);
    assert_eq!(trace.meta.filter.pids, [race.pid]);
    assert_explained(&race, &trace);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), shown, "-o and stdout are the same");
}

fn assert_explained(race: &Race, trace: &Trace) {
    if has_too_few(race) {
        return;
    }
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_eq!(trace.incidents.len() as u64, race.failures);
    assert_complete(&trace.incidents, |incident| is_explained(race, trace, incident));
}

/// Whether the incident is complete. If so, it must agree with all that the race knows.
fn is_explained(race: &Race, trace: &Trace, incident: &Incident) -> bool {
    let script = incident.file.path.as_deref().unwrap();
    let index: usize = script
        .strip_prefix(&format!("{}/fork-exec-", race.dir.display()))
        .unwrap()
        .parse()
        .unwrap();
    let writer = race.threads[index];
    assert_eq!(incident.direction, Direction::Exec);
    assert_eq!(incident.syscall, "execve");
    assert_eq!(incident.path.as_deref(), Some(script));
    assert_eq!(incident.file.role, Some(Role::Target));
    assert_eq!(incident.victim.ppid, Some(race.pid));
    // The holder dropped the file before the programs read the count.
    let Some(writers) = incident.file.writers.map(i32::cast_unsigned) else {
        assert!(!incident.complete && incident.holders.is_empty(), "{incident:#?}");
        return false;
    };
    assert!(incident.explained <= writers, "{incident:#?}");
    assert_eq!(incident.complete, incident.explained == writers, "{incident:#?}");
    if !incident.complete {
        return false;
    }
    assert!(!incident.holders.is_empty());
    if incident.holders.iter().any(|holder| holder.via == Via::Fork) {
        assert_eq!(incident.verdict.kind, VerdictKind::ForkExecRace, "{incident:#?}");
    }
    for holder in &incident.holders {
        assert_ne!(holder.pid, incident.victim.pid, "{incident:#?}");
        assert_ne!(holder.pid, race.pid, "the writer had closed it: {incident:#?}");
        assert!(!holder.fds.is_empty(), "{incident:#?}");
        if let Some(opened) = trace.opener(holder) {
            assert_eq!((opened.pid, opened.tid), (race.pid, writer), "{incident:#?}");
        }
        if holder.via == Via::Unknown && trace.has_skipped_programs() {
            // The skipped program may be that of its fork.
            continue;
        }
        assert_eq!(holder.via, Via::Fork, "{incident:#?}");
        let forked = holder.forked.as_ref().unwrap_or_else(|| panic!("{incident:#?}"));
        assert_eq!(forked.pid, race.pid, "{incident:#?}");
        assert!(race.threads.contains(&forked.tid), "{incident:#?}");
        // The writer's own child is forked after its close.
        assert_ne!(forked.tid, writer, "{incident:#?}");
        // On an emulated processor a child can take longer than the grace period.
        assert!(holder.released.is_some() || is_own_machine(), "{incident:#?}");
    }
    true
}
