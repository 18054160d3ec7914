//! Compares the tracer's incidents of refused writes with the report of `refusals`.

use super::mixed::counts_failures;
use crate::report::{Refusal, Refusals};
use etxtbsy_trace_event::{Direction, Incident, Lost};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The maximum number of faults that are described.
const MAX_DESCRIBED: usize = 100;

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteTally {
    /// Refused calls.
    pub refused: u64,
    /// Refused calls with an incident.
    pub compared: u64,
    /// Refused calls that the tracer counted as lost.
    pub lost: u64,
    /// Incidents that name a process.
    pub with_culprit: u64,
    /// Complete incidents.
    pub complete: u64,
    /// Named processes.
    pub named: u64,
    /// Named processes that cannot have run the file.
    pub wrong: u64,
    /// Processes that certainly ran the file during a refused call.
    pub sure: u64,
    /// Certain processes that are not named.
    pub missed: u64,
    /// Certain processes that are not named in complete incidents.
    pub missed_in_complete: u64,
    /// Incidents that explain more than the kernel's count.
    pub over_explained: u64,
    /// Faults of other kinds.
    pub others: u64,
    /// Descriptions of the first faults.
    pub faults: Vec<String>,
}

impl WriteTally {
    /// Whether no incident contradicts the report.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        [self.wrong, self.missed_in_complete, self.over_explained, self.others] == [0; 4]
    }

    fn fault(&mut self, fault: impl FnOnce() -> String) {
        if self.faults.len() < MAX_DESCRIBED {
            self.faults.push(fault());
        }
    }

    fn compare(&mut self, truth: &Refusal, incident: &Incident) {
        let describe = |fault: &str| {
            let json = |value: serde_json::Result<String>| value.unwrap_or_default();
            let (truth, incident_json) =
                (serde_json::to_string(truth), serde_json::to_string(incident));
            format!("incident {}: {fault}: {}: {}", incident.id, json(truth), json(incident_json))
        };
        self.compared += 1;
        self.complete += u64::from(incident.complete);
        if incident.holders.is_empty() {
            self.fault(|| describe("no process is named"));
        } else {
            self.with_culprit += 1;
        }
        if incident.file.ino.is_some_and(|ino| ino != truth.ino) {
            self.others += 1;
            self.fault(|| describe("the incident has another file"));
        }
        let count = incident.file.writers.map_or(1, |count| i64::from(count).saturating_neg());
        if i64::from(incident.explained) > count {
            self.over_explained += 1;
            self.fault(|| describe("explains more than the kernel's count"));
        }
        for holder in &incident.holders {
            self.named += 1;
            if !truth.runners.iter().any(|known| known.pid == holder.pid) {
                self.wrong += 1;
                self.fault(|| describe(&format!("{} cannot have run the file", holder.pid)));
            }
        }
        for known in truth.runners.iter().filter(|known| known.sure) {
            self.sure += 1;
            if incident.holders.iter().any(|holder| holder.pid == known.pid) {
                continue;
            }
            self.missed += 1;
            self.missed_in_complete += u64::from(incident.complete);
            self.fault(|| describe(&format!("{} ran the file and is not named", known.pid)));
        }
    }
}

/// Compares the incidents of one run of `refusals` with its report.
#[must_use]
pub fn compare_refusals(truth: &Refusals, incidents: &[Incident], lost: &[Lost]) -> WriteTally {
    let mut tally = WriteTally { refused: truth.refused.len() as u64, ..WriteTally::default() };
    let mut by_thread: HashMap<u32, Vec<&Incident>> = HashMap::new();
    for incident in incidents.iter().filter(|incident| incident.direction == Direction::Write) {
        by_thread.entry(incident.victim.tid).or_default().push(incident);
    }
    let mut missing = 0;
    for refused in &truth.refused {
        let of_thread = by_thread.entry(refused.tid).or_default();
        let during = refused.enter_ns..=refused.exit_ns;
        match of_thread.iter().position(|incident| during.contains(&incident.time_ns)) {
            Some(at) => tally.compare(refused, of_thread.swap_remove(at)),
            None => missing += 1,
        }
    }
    for incident in by_thread.into_values().flatten() {
        tally.others += 1;
        tally.fault(|| format!("incident {} has no refused call", incident.id));
    }
    tally.lost = lost.iter().filter(|lost| counts_failures(lost)).map(|lost| lost.count).sum();
    let unreported = u64::saturating_sub(missing, tally.lost);
    tally.others += unreported;
    if unreported > 0 {
        tally.fault(|| format!("{unreported} refused calls have no incident"));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PossibleRunner;
    use serde_json::{Value, json};

    const VICTIM: u32 = 9;

    fn truth() -> Refusals {
        let runner = |pid, sure| PossibleRunner { pid, from_ns: 0, until_ns: 900, sure };
        let runners = vec![runner(3, true), runner(4, false)];
        let refused = Refusal { tid: VICTIM, ino: 5, enter_ns: 100, exit_ns: 200, runners };
        Refusals {
            scenario: "refusals".into(),
            pid: VICTIM,
            runs: 2,
            failed_execs: 0,
            seconds: 1.0,
            refused: vec![refused],
        }
    }

    fn incident(pids: &[u32]) -> Value {
        let named = |pid: &u32| {
            json!({"pid": pid, "fds": [], "via": "running", "evidence": "running",
                "state": "running", "ancestors": [],
                "released": {"how": "exit", "time_ns": 300, "after_ns": 150}})
        };
        json!({"id": 1, "time": "", "time_ns": 150, "direction": "write", "syscall": "openat",
            "errno": "ETXTBSY", "victim": {"pid": VICTIM, "tid": VICTIM},
            "file": {"ino": 5, "writers": -1}, "holders": pids.iter().map(named).collect::<Vec<_>>(),
            "explained": 1, "complete": true, "certain": true,
            "verdict": {"kind": "running-executable", "summary": "", "advice": []}})
    }

    fn tally(incidents: &[Value]) -> WriteTally {
        let incidents: Vec<Incident> =
            incidents.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        compare_refusals(&truth(), &incidents, &[])
    }

    #[test]
    fn true_incidents_are_sound() {
        for pids in [&[3][..], &[3, 4]] {
            let tally = tally(&[incident(pids)]);
            assert!(tally.is_sound(), "{:?}", tally.faults);
            assert_eq!((tally.with_culprit, tally.sure, tally.missed), (1, 1, 0));
        }
    }

    #[test]
    fn false_incidents_are_detected() {
        let change = |path: &str, value: Value| {
            let mut one = incident(&[3]);
            *one.pointer_mut(path).unwrap() = value;
            one
        };
        assert_eq!(tally(&[incident(&[3, 7])]).wrong, 1);
        assert_eq!(tally(&[incident(&[4])]).missed_in_complete, 1);
        assert_eq!(tally(&[change("/explained", json!(2))]).over_explained, 1);
        assert_eq!(tally(&[change("/file/ino", json!(6))]).others, 1);
        assert_eq!(tally(&[]).others, 1);
        assert_eq!(tally(&[change("/time_ns", json!(201))]).others, 2);
        assert_eq!(tally(&[incident(&[])]).with_culprit, 0);
    }
}
