//! Compares the tracer's incidents with the report of `mixed`.

use super::refusals::{WriteTally, compare_refusals};
use crate::report::{BusyExec, HeldBy, Mixed, PossibleHolder, Refusals};
use anyhow::{Context, Result};
use etxtbsy_trace_event::{Direction, Evidence, Incident, Line, LossKind, Lost, Place};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// Arguments of `compare`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// The report of `workload mixed`, or of `workload refusals`
    truth: PathBuf,
    /// The JSON lines of the tracer that ran the workload
    trace: PathBuf,
}

/// Counts holders without evidence.
const NO_EVIDENCE: &str = "none";
/// The maximum number of faults that are described.
const MAX_DESCRIBED: usize = 100;

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Failed execs.
    pub failures: u64,
    /// Failed execs with an incident.
    pub compared: u64,
    /// Failed execs that the tracer counted as lost.
    pub lost: u64,
    /// Complete incidents.
    pub complete: u64,
    /// Certain incidents.
    pub certain: u64,
    /// Named holders.
    pub holders: u64,
    /// Named holders by their `evidence`; `none` for those without.
    pub evidence: BTreeMap<String, u64>,
    /// Named holders that cannot have held the file.
    pub wrong: u64,
    /// Wrong holders in complete incidents.
    pub wrong_in_complete: u64,
    /// Wrong holders in certain incidents.
    pub wrong_in_certain: u64,
    /// Wrong holders by their `evidence`.
    pub wrong_evidence: BTreeMap<String, u64>,
    /// Processes that certainly held a file while its exec failed.
    pub sure: u64,
    /// Certain holders that are not named.
    pub missed: u64,
    /// Certain holders that are not named in complete incidents.
    pub missed_in_complete: u64,
    /// Faults of other kinds.
    pub others: u64,
    /// Descriptions of the first faults, including holders that incomplete incidents missed.
    pub faults: Vec<String>,
}

impl Tally {
    /// Whether no incident contradicts the report.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let lacks_evidence = self.evidence.contains_key(NO_EVIDENCE);
        self.wrong == 0 && self.missed_in_complete == 0 && self.others == 0 && !lacks_evidence
    }

    fn fault(&mut self, fault: impl FnOnce() -> String) {
        if self.faults.len() < MAX_DESCRIBED {
            self.faults.push(fault());
        }
    }

    fn other_fault(&mut self, fault: impl FnOnce() -> String) {
        self.others += 1;
        self.fault(fault);
    }

    fn compare(&mut self, failed: &BusyExec, incident: &Incident) {
        self.compared += 1;
        self.complete += u64::from(incident.complete);
        self.certain += u64::from(incident.certain);
        for fault in inconsistencies(failed, incident) {
            self.other_fault(|| describe(&fault, failed, incident));
        }
        for holder in &incident.holders {
            self.holders += 1;
            let evidence = name(holder.evidence);
            *self.evidence.entry(evidence.clone()).or_default() += 1;
            if failed.processes().any(|known| known.pid == holder.pid) {
                continue;
            }
            self.wrong += 1;
            self.wrong_in_complete += u64::from(incident.complete);
            self.wrong_in_certain += u64::from(incident.certain);
            *self.wrong_evidence.entry(evidence).or_default() += 1;
            let fault = format!("{} cannot have held the file", holder.pid);
            self.fault(|| describe(&fault, failed, incident));
        }
        for known in failed.processes().filter(|known| known.sure) {
            self.sure += 1;
            if incident.holders.iter().any(|holder| holder.pid == known.pid) {
                continue;
            }
            self.missed += 1;
            self.missed_in_complete += u64::from(incident.complete);
            let fault = format!("{} held the file and is not named", known.pid);
            self.fault(|| describe(&fault, failed, incident));
        }
    }
}

impl BusyExec {
    /// The processes that may have held the file, each once: a certain hold is preferred.
    fn processes(&self) -> impl Iterator<Item = &PossibleHolder> {
        let is_sure =
            |pid| self.holders.iter().any(|it| it.is_process() && it.pid == pid && it.sure);
        let sure = self.holders.iter().filter(|it| it.is_process() && it.sure);
        let first_of = |at: usize, one: &PossibleHolder| {
            !self.holders[..at].iter().any(|it| it.is_process() && it.pid == one.pid)
        };
        let unsure = self.holders.iter().enumerate();
        let unsure =
            unsure.filter(move |(at, it)| it.is_process() && !is_sure(it.pid) && first_of(*at, it));
        sure.chain(unsure.map(|(_, it)| it))
    }
}

impl PossibleHolder {
    fn is_process(&self) -> bool {
        self.by != HeldBy::SocketQueue
    }
}

/// Compares the incidents of one run of `mixed` with its report.
#[must_use]
pub fn compare(truth: &Mixed, incidents: &[Incident], lost: &[Lost]) -> Tally {
    let mut tally = Tally { failures: truth.failed.len() as u64, ..Tally::default() };
    // Pids are reused, so a pid may have several incidents with one file.
    let mut by_victim: HashMap<u32, Vec<&Incident>> = HashMap::new();
    for incident in incidents.iter().filter(|incident| incident.direction == Direction::Exec) {
        by_victim.entry(incident.victim.pid).or_default().push(incident);
    }
    let mut missing = Vec::new();
    for failed in &truth.failed {
        let of_victim = by_victim.entry(failed.victim).or_default();
        let during = failed.enter_ns..=failed.exit_ns;
        match of_victim.iter().position(|incident| during.contains(&incident.time_ns)) {
            Some(at) => tally.compare(failed, of_victim.swap_remove(at)),
            None => missing.push(failed),
        }
    }
    for incident in by_victim.into_values().flatten() {
        tally.other_fault(|| format!("the incident has no failed exec: {}", json(incident)));
    }
    let counted = lost.iter().filter(|lost| counts_failures(lost)).map(|lost| lost.count).sum();
    tally.lost = counted;
    for failed in missing.into_iter().skip(usize::try_from(counted).unwrap_or(usize::MAX)) {
        tally.other_fault(|| format!("a failed exec has no incident: {}", json(failed)));
    }
    for one in lost.iter().filter(|one| one.kind == LossKind::CountContradicted) {
        tally.other_fault(|| format!("{}, in {} incidents", one.what, one.count));
    }
    tally
}

/// Whether it counts failures without an incident. (A program that the kernel skipped may have been the
/// one for a failure.)
pub(super) fn counts_failures(lost: &Lost) -> bool {
    use LossKind::{FailuresOverload, FailuresRingFull, FailuresUnread, ProgramsSkipped};
    matches!(lost.kind, FailuresOverload | FailuresRingFull | FailuresUnread | ProgramsSkipped)
        || (lost.kind == LossKind::Unknown && lost.what.starts_with("failures:"))
}

/// What is false in an incident, whoever held the file.
fn inconsistencies(failed: &BusyExec, incident: &Incident) -> Vec<String> {
    let mut faults = Vec::new();
    if incident.file.ino != Some(failed.ino) {
        faults.push(format!("the busy file was {}", failed.ino));
    }
    match incident.file.writers.map(u32::try_from) {
        Some(Ok(writers)) if incident.explained > writers => {
            faults.push(format!("{} of {writers} writers explained", incident.explained));
        }
        // The converse is no fault: other processes may hold the same descriptions.
        Some(Ok(writers)) if incident.complete && incident.explained != writers => {
            faults.push(format!("complete with {} of {writers} writers", incident.explained));
        }
        _ => {}
    }
    if incident.certain && !incident.complete {
        faults.push("certain but not complete".into());
    }
    let in_queues = incident.unheld.iter().filter(|it| it.place == Place::SocketQueue).count();
    let queued = failed.holders.iter().filter(|it| it.by == HeldBy::SocketQueue).count();
    if in_queues > queued {
        faults.push(format!("{in_queues} in socket queues, at most {queued} are possible"));
    }
    let elsewhere = |place| !matches!(place, Place::SocketQueue | Place::Unknown);
    for unheld in incident.unheld.iter().filter(|unheld| elsewhere(unheld.place)) {
        faults.push(format!("{:?} held nothing", unheld.place));
    }
    for holder in &incident.holders {
        let pid = holder.pid;
        if incident.certain && holder.evidence == Some(Evidence::Elimination) {
            faults.push(format!("certain, but {pid} is named by elimination"));
        }
        if holder.opened.as_ref().is_some_and(|opened| opened.time_ns >= incident.time_ns) {
            faults.push(format!("the description of {pid} was opened after the failure"));
        }
        let early = |at: u64| at < failed.enter_ns;
        if holder.released.as_ref().is_some_and(|released| early(released.time_ns)) {
            faults.push(format!("{pid} released the file before the call"));
        }
        let known: Vec<u32> = failed
            .holders
            .iter()
            .filter(|known| known.pid == pid)
            .flat_map(|known| known.fds.iter().copied())
            .collect();
        let named = holder.fds.iter().map(|fd| fd.fd);
        let unknown: Vec<u32> = named.filter(|fd| !known.contains(fd)).collect();
        // A process that cannot have held the file at all is counted as wrong.
        if !unknown.is_empty() && failed.processes().any(|known| known.pid == pid) {
            faults.push(format!("{pid} cannot have held the file at the fds {unknown:?}"));
        }
    }
    faults
}

fn name(evidence: Option<Evidence>) -> String {
    let value = serde_json::to_value(evidence).unwrap_or_default();
    value.as_str().unwrap_or(NO_EVIDENCE).to_owned()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn describe(fault: &str, failed: &BusyExec, incident: &Incident) -> String {
    format!("incident {}: {fault}: {}: {}", incident.id, json(failed), json(incident))
}

/// The result for either report.
pub(crate) enum Comparison {
    Mixed(Tally),
    Refusals(WriteTally),
}

/// Compares the report in one file with the JSON lines in another.
pub(crate) fn run(args: &Args) -> Result<Comparison> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let truth = read(&args.truth)?;
    let trace = File::open(&args.trace).with_context(|| args.trace.display().to_string())?;
    let (mut incidents, mut lost) = (Vec::new(), Vec::new());
    for line in BufReader::new(trace).lines() {
        let line = line?;
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Line::Incident(incident) => incidents.push(*incident),
            Line::Lost(one) => lost.push(one),
            Line::Meta(_) | Line::NearMiss(_) | Line::Refusal(_) | Line::Summary(_) => {}
        }
    }
    if let Ok(truth) = serde_json::from_slice::<Refusals>(&truth) {
        return Ok(Comparison::Refusals(compare_refusals(&truth, &incidents, &lost)));
    }
    let truth: Mixed = serde_json::from_slice(&truth).with_context(|| {
        format!("{} is not a report of mixed or refusals", args.truth.display())
    })?;
    Ok(Comparison::Mixed(compare(&truth, &incidents, &lost)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Race;
    use serde_json::{Value, json};

    const VICTIM: u32 = 9;

    fn holder(pid: u32, by: HeldBy, sure: bool) -> PossibleHolder {
        PossibleHolder { pid, by, sure, fds: vec![6], may_from_ns: 0, may_until_ns: u64::MAX }
    }

    fn truth(holders: Vec<PossibleHolder>) -> Mixed {
        Mixed {
            race: Race {
                scenario: "mixed".into(),
                pid: 1,
                dir: "/d".into(),
                attempts: 1,
                failures: 1,
                seconds: 1.0,
                threads: Vec::new(),
            },
            seed: 1,
            refused: 0,
            failed: vec![BusyExec { victim: VICTIM, ino: 5, enter_ns: 100, exit_ns: 200, holders }],
        }
    }

    fn named(pid: u32) -> Value {
        json!({"pid": pid, "fds": [], "via": "open", "evidence": "fd-table", "state": "running",
            "ancestors": [], "released": {"how": "close", "time_ns": 300, "after_ns": 150}})
    }

    /// A complete and certain incident that names these holders, each a writer.
    fn incident(holders: &[Value]) -> Value {
        json!({"id": 1, "time": "", "time_ns": 150, "direction": "exec", "syscall": "execve",
            "errno": "ETXTBSY", "victim": {"pid": VICTIM, "tid": VICTIM},
            "file": {"ino": 5, "writers": holders.len()}, "holders": holders,
            "explained": holders.len(), "complete": true, "certain": true,
            "verdict": {"kind": "still-open", "summary": "", "advice": []}})
    }

    fn tally(holders: &[PossibleHolder], incidents: &[Value], lost: &[Lost]) -> Tally {
        let incidents: Vec<Incident> =
            incidents.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        compare(&truth(holders.to_vec()), &incidents, lost)
    }

    /// Wrong, missed, other faults.
    fn counts(tally: &Tally) -> [u64; 3] {
        [tally.wrong, tally.missed, tally.others]
    }

    #[test]
    fn true_incidents_are_sound() {
        let holders = [holder(3, HeldBy::Fd, true), holder(4, HeldBy::Call, false)];
        for names in [&[named(3)][..], &[named(3), named(4)]] {
            let tally = tally(&holders, &[incident(names)], &[]);
            assert!(tally.is_sound(), "{:?}", tally.faults);
            assert_eq!((tally.sure, tally.missed, tally.certain), (1, 0, 1));
        }
    }

    #[test]
    fn an_impossible_holder_is_wrong() {
        let holders = [holder(3, HeldBy::Fd, true), holder(4, HeldBy::SocketQueue, true)];
        let tally = tally(&holders, &[incident(&[named(3), named(4)])], &[]);
        assert_eq!(counts(&tally), [1, 0, 0]);
        assert_eq!((tally.wrong_in_certain, tally.wrong_evidence["fd-table"]), (1, 1));
    }

    #[test]
    fn a_missed_holder_is_counted_once() {
        let holders = [
            holder(3, HeldBy::Fd, true),
            holder(4, HeldBy::Fd, false),
            holder(4, HeldBy::Mapping, true),
        ];
        let mut one = incident(&[named(3)]);
        let complete = tally(&holders, &[one.clone()], &[]);
        assert_eq!(counts(&complete), [0, 1, 0]);
        assert_eq!(complete.missed_in_complete, 1);
        assert!(!complete.is_sound());
        one["complete"] = json!(false);
        one["certain"] = json!(false);
        one["file"]["writers"] = json!(2);
        let incomplete = tally(&holders, &[one], &[]);
        assert_eq!((incomplete.missed, incomplete.missed_in_complete), (1, 0));
        assert!(incomplete.is_sound(), "{:?}", incomplete.faults);
    }

    #[test]
    fn false_incidents_are_detected() {
        let holders = [holder(3, HeldBy::Fd, true)];
        let change = |path: &str, value: Value| {
            let mut one = incident(&[named(3)]);
            *one.pointer_mut(path).unwrap() = value;
            one
        };
        for one in [
            change("/file/ino", json!(6)),
            change("/explained", json!(2)),
            change("/complete", json!(false)),
            change("/file/writers", json!(2)),
            change("/holders/0/evidence", json!("elimination")),
            change("/holders/0/released/time_ns", json!(99)),
            change("/time_ns", json!(201)),
        ] {
            let tally = tally(&holders, std::slice::from_ref(&one), &[]);
            assert!(tally.others > 0, "{one}");
        }
        let fd = json!([{"fd": 7, "flags": [], "cloexec": true}]);
        assert!(tally(&holders, &[change("/holders/0/fds", fd)], &[]).others > 0);
        let without_evidence = change("/holders/0/evidence", json!(null));
        assert!(!tally(&holders, &[without_evidence], &[]).is_sound());
        let mut opened = incident(&[named(3)]);
        opened["holders"][0]["opened"] = json!({"pid": 3, "tid": 3, "time_ns": 151});
        let mut queued = incident(&[named(3)]);
        queued["unheld"] = json!([{"place": "socket-queue"}]);
        for one in [opened, queued] {
            assert_eq!(counts(&tally(&holders, &[one], &[])), [0, 0, 1]);
        }
    }

    #[test]
    fn a_failure_without_an_incident_is_a_fault_unless_it_was_lost() {
        let holders = [holder(3, HeldBy::Fd, true)];
        assert_eq!(counts(&tally(&holders, &[], &[])), [0, 0, 1]);
        let lost = Lost { kind: LossKind::FailuresOverload, what: String::new(), count: 1 };
        assert!(tally(&holders, &[], &[lost]).is_sound());
        let other = Lost { kind: LossKind::HoldsMapFull, what: String::new(), count: 1 };
        assert!(!tally(&holders, &[], &[other]).is_sound());
        let lost = Lost { kind: LossKind::CountContradicted, what: String::new(), count: 1 };
        assert_eq!(counts(&tally(&holders, &[incident(&[named(3)])], &[lost])), [0, 0, 1]);
        let twice = [incident(&[named(3)]), incident(&[named(3)])];
        assert_eq!(counts(&tally(&holders, &twice, &[])), [0, 0, 1]);
    }
}
