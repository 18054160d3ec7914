//! Compares each failure with a race whose children record what they inherited.

use crate::support::{Turn, has_too_few, is_own_machine};
use etxtbsy_trace::event::{Holder, How, Incident};
use etxtbsy_workload::{FailedExec, GroundTruth, Inheritor};
use std::collections::HashMap;

/// The result of the comparison; `wrong` has a line of text for each error.
#[derive(Default)]
struct Tally {
    complete: u64,
    holders: u64,
    sure: u64,
    /// Certain holders that incomplete incidents do not name.
    missing: u64,
    wrong: Vec<String>,
    /// Whether the kernel reported that it skipped a program.
    programs_skipped: bool,
    /// How late a release may be reported: if the kernel skipped a program, only a later event shows it;
    /// and on emulated processors the tracer is slow.
    late_ns: u64,
}

#[test]
fn named_holders_held_the_file_and_certain_ones_are_not_missed() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (truth, trace): (GroundTruth, _) = turn.race("ground-truth", 200);
    if has_too_few(&truth.race) {
        return;
    }
    assert_eq!(truth.failed.len() as u64, truth.race.failures);
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);

    let mut incidents: HashMap<(u32, u64), Vec<&Incident>> = HashMap::new();
    for incident in &trace.incidents {
        let key = (incident.victim.pid, incident.file.ino.unwrap_or(0));
        incidents.entry(key).or_default().push(incident);
    }
    let programs_skipped = trace.has_skipped_programs();
    let late_ns = match (is_own_machine(), programs_skipped) {
        (true, _) => 200_000_000,
        (false, true) => 10_000_000,
        (false, false) => 0,
    };
    let mut tally = Tally { programs_skipped, late_ns, ..Tally::default() };
    for failed in &truth.failed {
        match incidents.remove(&(failed.victim, failed.ino)).as_deref() {
            Some([incident]) => tally.compare(truth.race.pid, failed, incident),
            other => tally.wrong.push(format!("not one incident: {failed:?}: {other:?}")),
        }
    }
    let invented = incidents.into_values().flatten();
    tally.wrong.extend(invented.map(|incident| format!("no such failure: {incident:?}")));

    println!(
        "{} failures, {} complete; {} holders named; {} surely were, {} of them not named in an \
         incomplete incident; {} wrong",
        truth.failed.len(),
        tally.complete,
        tally.holders,
        tally.sure,
        tally.missing,
        tally.wrong.len(),
    );
    assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n"));
}

impl Tally {
    fn compare(&mut self, pid: u32, failed: &FailedExec, incident: &Incident) {
        self.complete += u64::from(incident.complete);
        for holder in &incident.holders {
            self.holders += 1;
            let known = failed.inheritors.iter().find(|known| known.pid == holder.pid);
            let faults = match known {
                Some(known) => self.faults(pid, failed.writer, known, holder),
                None => vec!["it did not hold the file".into()],
            };
            for fault in faults {
                self.wrong.push(format!(
                    "incident {}: holder {}: {fault}: {failed:?}: {holder:?}",
                    incident.id, holder.pid
                ));
            }
        }
        for known in failed.inheritors.iter().filter(|known| known.sure) {
            self.sure += 1;
            if incident.holders.iter().any(|holder| holder.pid == known.pid) {
                continue;
            }
            self.missing += 1;
            if incident.complete {
                self.wrong.push(format!(
                    "incident {} is complete without holder {}: {failed:?}: {:?}",
                    incident.id, known.pid, incident.holders
                ));
            }
        }
    }

    /// The facts about a holder that are wrong.
    fn faults(&self, pid: u32, writer: u32, known: &Inheritor, holder: &Holder) -> Vec<String> {
        let mut faults = Vec::new();
        let fds: Vec<u32> = holder.fds.iter().map(|fd| fd.fd).collect();
        if fds != known.fds {
            faults.push(format!("its fds were {:?}, not {fds:?}", known.fds));
        }
        let opened = holder.opened.as_ref().map(|by| (by.pid, by.tid));
        // If the program of the open was skipped, the opener is not known.
        if opened != Some((pid, writer)) && !(opened.is_none() && self.programs_skipped) {
            faults.push(format!("thread {writer} opened the file, not {opened:?}"));
        }
        let forked = holder.forked.as_ref().map(|by| (by.pid, by.tid));
        if forked != Some((pid, known.forked_by)) {
            faults.push(format!("thread {} forked it, not {forked:?}", known.forked_by));
        }
        match &holder.released {
            None => faults.push("it is reported to hold the file still".into()),
            // A child whose own exec failed exits with the fd.
            Some(released) if !matches!(released.how, How::CloseOnExec | How::Exit) => {
                faults.push(format!("it cannot have released the file by {:?}", released.how));
            }
            Some(released) => {
                let (from, to) = (known.before_exec_ns, known.gone_by_ns + self.late_ns);
                if !(from..=to).contains(&released.time_ns) {
                    let time = released.time_ns;
                    faults.push(format!("it released the file from {from} to {to}, not at {time}"));
                }
            }
        }
        faults
    }
}
