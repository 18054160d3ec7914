//! Checks who is named for a failure, for any sequence of records.

use std::collections::HashMap;

use etxtbsy_trace::{
    analysis::{
        attribution::attribute,
        case::{Case, DescriptionClosed, Pin},
        incident::{World, build},
        ledger::Ledger,
        running,
    },
    event::{Evidence, Incident, Place, VerdictKind},
    tracer::records::Record,
};
use etxtbsy_trace_common::{
    Candidate, Change, Compat, Dropped, Failure, FailureEnd, Hold, Kind, ProgramExited, Repaired,
    Runner, TreeEnded, WriteRefused,
};

/// The times at which the failing calls begin and end; the times in records are near these.
const ENTER: u64 = 1_000_000_000;
const EXIT: u64 = ENTER + 10_000;
/// The busy file's `struct inode *`.
const INODE: u64 = 1;

/// Reads the bytes as records of some failures. Checks that no holder is named without evidence, and that an
/// incident does not explain more writers than the kernel counted.
pub fn attribution(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut ledger = Ledger::default();
    let mut cases = Vec::new();
    while let Some(step) = input.byte() {
        match step % 16 {
            0..=10 => {
                let record = input.record(step % 16);
                let record = Record::decode(&record).expect("a record of that kind and size");
                let _ = ledger.record(record);
            }
            11 => {
                let (file, tgid) = (input.value(), input.value() as u32);
                let (time_ns, exiting) = (input.value(), input.flag());
                ledger.dropped(file, tgid, DescriptionClosed { time_ns, exiting });
            }
            12 => {
                for hold in ledger.unended(u64::MAX).into_values() {
                    if input.flag() {
                        ledger.gone(&hold, input.value());
                    }
                }
            }
            13 => {
                let seq = input.value();
                let write = ledger.case(seq).filter(|case| case.is_write());
                if let Some(running) = write.and_then(running::shown) {
                    ledger.running(seq, running);
                }
                if let Some(case) = ledger.case_mut(seq) {
                    input.find_out(case);
                }
            }
            14 => ledger.exec(INODE, input.value() as u32, b"/bin/true"),
            _ => cases.extend(ledger.settled(input.value())),
        }
    }
    cases.extend(ledger.drain());
    for case in &cases {
        assert_case_holds(case);
    }
}

/// Checks what must hold for a case.
fn assert_case_holds(case: &Case) {
    let found = attribute(case);
    let writers = found.writers.unwrap_or(0);
    assert!(found.explained <= writers || found.writers.is_none(), "{found:#?} of {case:#?}");
    let known = |tgid| {
        let candidates = case.candidates.iter().map(|candidate| &candidate.hold);
        let holds = candidates.chain(case.acquired.iter().map(|change| &change.hold));
        holds.into_iter().any(|hold| hold.tgid == tgid)
    };
    for held in &found.holders {
        assert!(known(held.tgid), "no record has {held:#?} in {case:#?}");
    }
    let world = World {
        roots: &[],
        seen: &HashMap::new(),
        lineage: Box::new(|_| None),
        cgroup: Box::new(|_| None),
        realtime_offset_ns: 0,
        target_begins: None,
    };
    let incident = build(1, case, &found, &world);
    let Incident { file, holders, unheld, explained, complete, certain, verdict, .. } = &incident;
    let count = file.writers.map_or(u32::MAX, i32::unsigned_abs);
    assert!(*explained <= count, "{incident:#?} of {case:#?}");
    assert!(!complete || *explained > 0, "{incident:#?} of {case:#?}");
    assert!(*complete || !*certain, "{incident:#?} of {case:#?}");
    let is_eliminated = |evidence| evidence == Some(Evidence::Elimination);
    for holder in holders {
        assert!(holder.evidence.is_some(), "{incident:#?} of {case:#?}");
        assert!(!is_eliminated(holder.evidence) || !certain, "{incident:#?} of {case:#?}");
    }
    let is_pinned = unheld.iter().any(|one| one.place != Place::Unknown);
    let is_explained = verdict.kind != VerdictKind::Unexplained;
    assert!(!is_explained || !holders.is_empty() || is_pinned, "{incident:#?} of {case:#?}");
}

/// The remaining bytes, followed by endless zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn flag(&mut self) -> bool {
        self.byte().is_some_and(|byte| byte % 2 == 1)
    }

    /// A small number, or a time near the call, so that values of records are often equal or in order.
    fn value(&mut self) -> u64 {
        let byte = self.byte().unwrap_or(0);
        let step = u64::from(byte % 16);
        match byte / 16 {
            0..=5 => step,
            6 => u64::from(byte) << 24,
            7 => u64::from(u32::MAX) - step,
            8 => ENTER - (step << 24),
            9 => ENTER - step,
            10 => ENTER + step,
            11 => ENTER + step * 700,
            12 => EXIT - step,
            13 => EXIT + step,
            14 => EXIT + (step << 16),
            _ => EXIT + (step << 27),
        }
    }

    /// The bytes of a record with some words set.
    fn record(&mut self, step: u8) -> Vec<u8> {
        let (kind, size) = match step {
            0 => (Kind::Failure, size_of::<Failure>()),
            1..=3 => (Kind::Candidate, size_of::<Candidate>()),
            4 => (Kind::FailureEnd, size_of::<FailureEnd>()),
            5 => (Kind::Acquired, size_of::<Change>()),
            6 => (Kind::Released, size_of::<Change>()),
            7 => (Kind::Dropped, size_of::<Dropped>()),
            8 => (Kind::ProgramExited, size_of::<ProgramExited>()),
            9 => (Kind::Runner, size_of::<Runner>()),
            _ => match self.byte().unwrap_or(0) % 4 {
                0 => (Kind::WriteRefused, size_of::<WriteRefused>()),
                1 => (Kind::Repaired, size_of::<Repaired>()),
                2 => (Kind::Compat, size_of::<Compat>()),
                _ => (Kind::TreeEnded, size_of::<TreeEnded>()),
            },
        };
        let mut record = vec![0; size];
        record[..4].copy_from_slice(&(kind as u32).to_ne_bytes());
        let mut set = |at: usize, value: u64| {
            record[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        };
        match kind {
            Kind::Failure => {
                set(std::mem::offset_of!(Failure, enter_ns), ENTER);
                set(std::mem::offset_of!(Failure, exit_ns), EXIT);
                set(std::mem::offset_of!(Failure, inode), INODE);
                let call = if self.flag() { 59 } else { self.value() as u32 };
                let at = std::mem::offset_of!(Failure, syscall);
                record[at..at + 4].copy_from_slice(&call.to_ne_bytes());
            }
            Kind::Candidate => {
                let hold = std::mem::offset_of!(Candidate, hold);
                set(std::mem::offset_of!(Candidate, inode), INODE);
                set(hold + std::mem::offset_of!(Hold, inode), INODE);
            }
            Kind::Acquired | Kind::Released => {
                let hold = std::mem::offset_of!(Change, hold);
                set(std::mem::offset_of!(Change, inode), INODE);
                set(hold + std::mem::offset_of!(Hold, inode), INODE);
            }
            _ => {}
        }
        // The place and the value of a word; the place's top bit makes it 64 bits wide.
        for _ in 0..self.byte().unwrap_or(0) % 32 {
            let place = self.byte().unwrap_or(0);
            let at = 4 * (1 + usize::from(place % 128) % (size / 4 - 1));
            let value = self.value();
            let width = if place >= 128 && at + 8 <= size { 8 } else { 4 };
            record[at..at + width].copy_from_slice(&value.to_ne_bytes()[..width]);
        }
        record
    }

    /// Sets something that user space can find out about a failure.
    fn find_out(&mut self, case: &mut Case) {
        match self.byte().unwrap_or(0) % 8 {
            0 => drop(case.opening.insert(self.value() as u32)),
            1 => drop(case.may_open.insert(self.value() as u32)),
            2 => drop(case.registered.insert(self.value())),
            3 => case.pins.push(Pin::SwapFile),
            4 => case.pins.push(Pin::LoopDevice("/dev/loop0".to_owned())),
            5 => case.blind = true,
            6 => case.passed_over = true,
            _ => case.passed_since_ns = self.value(),
        }
    }
}
