//! The loop against recorded records: without root, and without a kernel that is asked.
//!
//! `still-open.records` are the bytes of the ring buffer, each record behind its length. They change with the layout
//! of the records (`etxtbsy-trace-common`). To record them anew:
//! `sudo env ETXTBSY_TRACE_RECORDS=still-open.records etxtbsy-trace run -- etxtbsy-trace workload still-open`

use std::{collections::VecDeque, future::Pending, os::fd::AsRawFd, sync::Mutex};

use etxtbsy_trace_common::{CallCount, CallKey, Lineage, PendingRelease, Run, Stack};
use tokio::runtime::Runtime;

use super::*;
use crate::{
    event::{How, Incident, VerdictKind},
    output::Output,
    tracer::ExecCounts,
};

const STILL_OPEN: &[u8] = include_bytes!("still-open.records");

/// A kernel side that has nothing but records, and answers as if all had ended.
struct Recording {
    records: VecDeque<Vec<u8>>,
    failures: u64,
}

impl Recording {
    fn new(bytes: &[u8], failures: u64) -> Self {
        let mut records = VecDeque::new();
        let mut rest = bytes;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (record, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            records.push_back(record.to_vec());
            rest = after;
        }
        Self { records, failures }
    }
}

impl Backend for Recording {
    fn listen(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn readable(&mut self) -> io::Result<()> {
        if self.records.is_empty() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn next_record<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.records.pop_front().map(|record| read(&record))
    }

    fn pids(&mut self) -> anyhow::Result<Pids> {
        // None of those that are recorded lives here.
        Ok(Pids::default())
    }

    fn is_filtered(&self) -> bool {
        false
    }

    fn tree(&mut self) -> anyhow::Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn is_in_tree(&self, _: u32) -> bool {
        false
    }

    fn tree_size(&self) -> u64 {
        0
    }

    fn failures(&self) -> u64 {
        self.failures
    }

    fn other_calls(&self) -> u64 {
        0
    }

    fn other_calls_by_process(&mut self) -> anyhow::Result<Vec<(CallKey, CallCount)>> {
        Ok(Vec::new())
    }

    fn execs(&self) -> ExecCounts {
        ExecCounts::default()
    }

    fn elsewhere(&self) -> u64 {
        0
    }

    fn take(&self, _: Intake) {}

    fn lost(&self, _: Lost) -> u64 {
        0
    }

    fn missed(&self) -> u64 {
        0
    }

    fn lineage(&self, _: u32) -> Option<Lineage> {
        None
    }

    fn last_exec_ns(&self, _: u32) -> u64 {
        0
    }

    fn script(&self, _: u32) -> Option<Vec<u8>> {
        None
    }

    fn run(&self, _: u32) -> Option<Run> {
        None
    }

    fn is_in_exec(&self, _: u64) -> bool {
        false
    }

    fn exec_name(&self, _: u64, _: u32) -> Option<Vec<u8>> {
        None
    }

    fn copies_stacks(&self) -> bool {
        false
    }

    fn stack(&self, _: u64, _: u32) -> Option<Box<Stack>> {
        None
    }

    fn copy_stacks_of(&mut self, _: &impl AsRawFd) -> anyhow::Result<()> {
        Ok(())
    }

    fn still_open(&mut self, _: u64, _: &PendingRelease) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn lives(&mut self, _: u64, _: u64) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn write_count(&mut self, _: &impl AsRawFd) -> anyhow::Result<i32> {
        Ok(0)
    }

    fn is_swap_file(&mut self, _: &impl AsRawFd) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn inode_at(&mut self, _: &impl AsRawFd) -> anyhow::Result<u64> {
        Ok(0)
    }

    fn is_kept_by(&mut self, _: (u64, u64), _: &impl AsRawFd) -> Option<bool> {
        None
    }

    fn still_there(&mut self, _: &Hold) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn await_end(&mut self, _: u32, _: &PendingRelease) -> anyhow::Result<()> {
        Ok(())
    }

    fn await_no_end(&mut self) {}

    fn unwatch(&mut self, _: u64, _: u64) -> anyhow::Result<bool> {
        Ok(true)
    }

    fn add_to_tree(&mut self, _: u32) -> anyhow::Result<bool> {
        Ok(true)
    }

    fn remove_from_tree(&mut self, _: u32) -> anyhow::Result<()> {
        Ok(())
    }

    fn follow_compat(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn has_seen_compat(&self) -> bool {
        false
    }

    fn passed_since_ns(&self) -> u64 {
        0
    }

    fn follow_passed(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// An output that keeps the lines.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Line>>>);

impl Output for Kept {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.0.lock().unwrap().push(line.clone());
        Ok(())
    }
}

/// The lines of a session over a recording until that many incidents, and how it ended.
fn session(recording: Recording, incidents: u64) -> (Vec<Line>, Summary) {
    // A recording that is not understood has no incident.
    let duration = Some(Duration::from_secs(60));
    session_within(recording, Limits { duration, incidents: Some(incidents) })
}

fn session_within(recording: Recording, limits: Limits) -> (Vec<Line>, Summary) {
    let runtime: Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kept = Kept::default();
    let sinks = vec![Sink::direct("the test", kept.clone())];
    let ended = runtime.block_on(async {
        let mut session = Session::begin(recording, Filter::default(), None, sinks).unwrap();
        assert_eq!(
            session.trace(None::<Pending<io::Result<u8>>>, limits, &Notify::new()).await.unwrap(),
            None
        );
        session.end(limits).await.unwrap()
    });
    let lines = std::mem::take(&mut *kept.0.lock().unwrap());
    (lines, ended.summary)
}

fn incidents(lines: &[Line]) -> Vec<&Incident> {
    lines
        .iter()
        .filter_map(|line| match line {
            Line::Incident(incident) => Some(&**incident),
            _ => None,
        })
        .collect()
}

#[test]
fn recorded_records_become_lines_in_order() {
    let (lines, summary) = session(Recording::new(STILL_OPEN, 1), 1);
    assert!(matches!(lines.first(), Some(Line::Meta(_))), "{lines:#?}");
    assert!(matches!(lines.last(), Some(Line::Summary(_))), "{lines:#?}");
    let [incident] = incidents(&lines)[..] else { panic!("{lines:#?}") };
    assert_eq!(incident.verdict.kind, VerdictKind::StillOpen);
    assert!(incident.complete && incident.certain, "{incident:#?}");
    let [holder] = &incident.holders[..] else { panic!("{incident:#?}") };
    assert_eq!(holder.pid, incident.victim.ppid.unwrap(), "the opener forked the victim");
    assert_eq!(holder.released.as_ref().map(|released| released.how), Some(How::Close));
    assert_eq!((summary.incidents, summary.explained, summary.lost), (1, 1, 0));
}

#[test]
fn a_garbled_record_is_counted_and_the_others_are_read() {
    let mut recording = Recording::new(STILL_OPEN, 1);
    recording.records.push_front(vec![0xff; 7]);
    let (lines, summary) = session(recording, 1);
    let lost = lines.iter().find_map(|line| match line {
        Line::Lost(lost) => Some((lost.kind, lost.count)),
        _ => None,
    });
    assert_eq!(lost, Some((LossKind::RecordsGarbled, 1)));
    assert_eq!((summary.incidents, summary.explained, summary.lost), (1, 1, 1));
}

#[test]
fn a_failure_whose_record_was_not_read_is_reported_as_lost() {
    let (lines, summary) = session(Recording::new(STILL_OPEN, 3), 1);
    assert_eq!(incidents(&lines).len(), 1);
    assert_eq!((summary.failures, summary.lost), (3, 2), "{lines:#?}");
}

#[test]
fn a_candidate_that_is_cut_off_leaves_the_incident_incomplete() {
    // Without the records after the first: no holder, no end of the failure.
    let mut recording = Recording::new(STILL_OPEN, 1);
    recording.records.truncate(1);
    // What has no end is reported at the end of the session, which reads what is left.
    let duration = Some(Duration::from_millis(10));
    let (lines, _) = session_within(recording, Limits { duration, incidents: None });
    let [incident] = incidents(&lines)[..] else { panic!("{lines:#?}") };
    assert!(!incident.complete && incident.holders.is_empty(), "{incident:#?}");
}
