//! Totals of all incidents, in bounded memory.

use crate::{
    analysis::{group::Tally, names::pattern, wait::Wait},
    event::{Incident, VerdictKind},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The programs that are counted separately in each list; all others are counted together.
const PROGRAMS: usize = 1_000;
/// The limits between the classes of waits, in nanoseconds.
pub const DECADES: [u64; 9] = [
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    100_000_000_000,
];

/// A program: the thread's name and the executable, as patterns without digits and random parts.
pub type Program = (Option<String>, Option<String>);

/// The totals.
pub struct Statistics {
    /// The incidents, and their waits.
    pub tally: Tally,
    /// The number of waits in each class, the shortest first.
    pub waits: [u64; DECADES.len() + 1],
    /// The number of incidents without a known holder.
    pub unknown: u64,
    /// The number of incidents by verdict.
    pub verdicts: BTreeMap<VerdictKind, u64>,
    /// The programs that held the file, by incidents.
    pub holders: Top,
    /// The programs whose call failed.
    pub victims: Top,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            tally: Tally::new(0),
            waits: [0; DECADES.len() + 1],
            unknown: 0,
            verdicts: BTreeMap::new(),
            holders: Top::default(),
            victims: Top::default(),
        }
    }
}

impl Statistics {
    /// Counts an incident.
    pub fn add(&mut self, incident: &Incident) {
        self.tally.add(incident);
        match Wait::of(incident) {
            Wait::Over(ns) => self.waits[DECADES.partition_point(|least| *least <= ns)] += 1,
            Wait::Endless => {}
            Wait::Unknown => self.unknown += 1,
        }
        *self.verdicts.entry(incident.verdict.kind).or_default() += 1;
        let program = |comm: &Option<String>, exe: &Option<String>| {
            (comm.as_deref().map(pattern), exe.as_deref().map(pattern))
        };
        let victim = &incident.victim;
        self.victims.add(program(&victim.comm, &victim.exe));
        let holders = incident.holders.iter().map(|holder| program(&holder.comm, &holder.exe));
        // Several holders of one program count once.
        for holder in holders.collect::<HashSet<_>>() {
            self.holders.add(holder);
        }
    }
}

/// How often each program was seen.
#[derive(Default)]
pub struct Top {
    counts: HashMap<Program, u64>,
    other: u64,
}

impl Top {
    fn add(&mut self, program: Program) {
        if self.counts.len() < PROGRAMS || self.counts.contains_key(&program) {
            *self.counts.entry(program).or_default() += 1;
        } else {
            self.other += 1;
        }
    }

    /// The most frequent programs, and the count of all others.
    #[must_use]
    pub fn first(&self, most: usize) -> (Vec<(&Program, u64)>, u64) {
        let mut all: Vec<_> =
            self.counts.iter().map(|(program, count)| (program, *count)).collect();
        all.sort_by_key(|(program, count)| (std::cmp::Reverse(*count), *program));
        let rest = all.split_off(most.min(all.len()));
        (all, rest.iter().map(|(_, count)| count).sum::<u64>() + self.other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn waits_verdicts_and_programs_are_counted() {
        let mut statistics = Statistics::default();
        let all = [
            samples::race(),
            samples::leaked(),
            samples::still_open(),
            samples::unexplained(),
            samples::several(),
            samples::write_direction(),
        ];
        for incident in &all {
            statistics.add(incident);
        }
        // 180 µs, 1.25 ms (the longer of two) and 2.5 s.
        assert_eq!(statistics.waits, [0, 0, 0, 1, 1, 0, 0, 1, 0, 0]);
        assert_eq!(
            (statistics.unknown, statistics.tally.endless, statistics.tally.count),
            (1, 2, 6)
        );
        assert_eq!(statistics.verdicts[&VerdictKind::ForkExecRace], 2);
        let program = |comm: &str, exe: &str| (Some(comm.to_owned()), Some(exe.to_owned()));
        let demo = program("demo", "/usr/bin/demo");
        let daemon = program("daemon", "/usr/sbin/daemon");
        let (first, rest) = statistics.holders.first(2);
        assert_eq!((first, rest), (vec![(&demo, 4), (&daemon, 1)], 1));
        // One of the two holders of `several` has no executable.
        let other = (Some("demo".to_owned()), None);
        assert_eq!(statistics.holders.first(9).0[2], (&other, 1));
        let worker = program("worker-N", "/usr/bin/demo");
        assert_eq!(statistics.victims.first(1), (vec![(&worker, 4)], 2));
    }

    #[test]
    fn waits_are_counted_in_their_class() {
        for (ns, class) in [(0, 0), (999, 0), (1_000, 1), (99_999, 2), (u64::MAX, 9)] {
            let mut incident = samples::race();
            let released = incident.holders[0].released.as_mut().unwrap();
            released.after_ns = i64::try_from(ns).unwrap_or(i64::MAX);
            let mut statistics = Statistics::default();
            statistics.add(&incident);
            assert_eq!(statistics.waits[class], 1, "{ns}");
        }
    }

    #[test]
    fn many_programs_take_bounded_memory_and_lose_no_count() {
        let mut top = Top::default();
        for n in 0..PROGRAMS as u64 + 50 {
            top.add((Some(n.to_string()), None));
        }
        assert_eq!(top.counts.len(), PROGRAMS);
        let (first, rest) = top.first(10);
        assert_eq!((first.len(), rest), (10, PROGRAMS as u64 + 40));
    }
}
