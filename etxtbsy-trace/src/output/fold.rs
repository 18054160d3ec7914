//! Which incidents the text shows in full, and which it folds into one line about many.
//!
//! The first incidents of a group are shown in full. Then repeats fold: a retry loop into one line, all
//! others of a group into one line a second. Time is that of the incidents, not the clock, so that a
//! replay folds as the live session did.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    analysis::{names::Shape, wait::Wait},
    event::{Direction, Holder, Incident, Place, VerdictKind},
};

/// How many incidents of a group are shown in full, and of how many groups.
const IN_FULL: u64 = 3;
const GROUPS_IN_FULL: usize = 20;
/// The repeats of a group fold into one line a second, and after each so many lines into one for ten times
/// as long, so that the text of a long run stays short.
const LINES: usize = 20;
/// How many retry loops have a line of their own, and how many are followed at once.
const LOOPS: usize = 20;
const LOOPS_AT_ONCE: usize = 64;
/// A loop is over if no retry failed for that long.
const LOOP_GAP_NS: u64 = 10_000_000_000;
/// How many ranges of ids a line lists.
const RANGES: usize = 4;

/// The incidents that wait to be folded.
#[derive(Debug, Default)]
pub(super) struct Fold {
    /// The latest time of an incident.
    now_ns: u64,
    /// The groups shown in full, by the id of their first incident.
    in_full: HashSet<u64>,
    /// The repeats of each group, by the id of its first incident.
    repeats: HashMap<u64, Repeats>,
    /// The failures that may be retried.
    retried: Vec<Retried>,
    /// How many lines about repeats, and about loops, there were.
    lines: usize,
    loops: usize,
}

/// Incidents that one line is about.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    /// The first, and the last in the order of lines.
    pub(super) first: Arc<Incident>,
    pub(super) last: Arc<Incident>,
    /// The id of the first incident of the group, if it was shown in full.
    pub(super) like: Option<u64>,
    /// The id of the failure that was retried, if all of these are retries of it.
    pub(super) retries_of: Option<u64>,
    /// How many.
    pub(super) count: u64,
    /// Which.
    pub(super) ids: Ids,
    /// When the earliest and the latest failed.
    pub(super) times_ns: (u64, u64),
    /// What their files have in common.
    pub(super) file: Shape,
    /// Their verdict, if it is the same.
    pub(super) verdict: Option<VerdictKind>,
    /// The process whose calls failed, if it is the same.
    pub(super) victim: Option<u32>,
    /// The shortest and the longest of the waits that ended.
    pub(super) waits_ns: Option<(u64, u64)>,
    /// In how many somebody still held the file, and in how many nobody is known to have.
    pub(super) endless: u64,
    pub(super) unknown: u64,
}

/// The repeats of a group until a time.
#[derive(Debug)]
struct Repeats {
    until_ns: u64,
    folded: Folded,
}

/// A failure, and its retries so far.
#[derive(Debug)]
struct Retried {
    retry: Retry,
    group: u64,
    id: u64,
    last_ns: u64,
    folded: Option<Folded>,
}

/// What the failures of one retry loop have in common.
#[derive(Debug, PartialEq, Eq)]
struct Retry {
    group: u64,
    direction: Direction,
    /// The process that tries again. If each attempt is a child of its own, their parent.
    process: u32,
    path: Option<String>,
    inode: (Option<String>, Option<u64>),
    /// The holders: pid, start, and when the file was opened.
    holders: Vec<(u32, Option<u64>, Option<u64>)>,
    /// What keeps the file without a process.
    places: Vec<(Place, Option<String>)>,
}

impl Fold {
    /// Takes an incident of a group, which is its `count`th; `group` is the id of its first. Returns the
    /// lines that are due before it, and whether it is shown in full.
    pub(super) fn add(
        &mut self,
        incident: &Incident,
        group: u64,
        count: u64,
    ) -> (Vec<Folded>, bool) {
        let due = self.pass(incident.time_ns);
        if let Some(retry) = Retry::of(incident, group) {
            let known = self.retried.iter_mut().find(|known| known.retry == retry);
            if let Some(known) = known {
                known.last_ns = self.now_ns;
                add_to(&mut known.folded, incident);
                return (due, false);
            }
            self.remember(retry, incident.id);
        }
        if count == 1 && self.in_full.len() < GROUPS_IN_FULL {
            self.in_full.insert(group);
        }
        if count <= IN_FULL && self.in_full.contains(&group) {
            return (due, true);
        }
        self.repeat(group, Folded::new(incident));
        (due, false)
    }

    /// Time has passed. Returns the lines that are due.
    pub(super) fn pass(&mut self, time_ns: u64) -> Vec<Folded> {
        self.now_ns = self.now_ns.max(time_ns);
        let now_ns = self.now_ns;
        self.close(|last_ns| last_ns.saturating_add(LOOP_GAP_NS) < now_ns, |until| until <= now_ns)
    }

    /// Returns all lines that are left.
    pub(super) fn end(&mut self) -> Vec<Folded> {
        self.close(|_| true, |_| true)
    }

    /// Returns the lines about loops and repeats that are over, in the order of their first ids.
    fn close(
        &mut self,
        is_loop_over: impl Fn(u64) -> bool,
        are_repeats_over: impl Fn(u64) -> bool,
    ) -> Vec<Folded> {
        let mut due = Vec::new();
        for ended in self.retried.extract_if(.., |known| is_loop_over(known.last_ns)) {
            let Some(folded) = ended.folded else { continue };
            if self.loops < LOOPS {
                self.loops += 1;
                let like = self.in_full.contains(&ended.group).then_some(ended.group);
                due.push(Folded { like, retries_of: Some(ended.id), ..folded });
            } else {
                merge(&mut self.repeats, ended.group, folded, until(self.now_ns, self.lines));
            }
        }
        for (group, over) in self.repeats.extract_if(|_, open| are_repeats_over(open.until_ns)) {
            self.lines += 1;
            let like = self.in_full.contains(&group).then_some(group);
            due.push(Folded { like, ..over.folded });
        }
        due.sort_by_key(|folded| folded.first.id);
        due
    }

    /// Adds to the repeats of a group.
    fn repeat(&mut self, group: u64, folded: Folded) {
        merge(&mut self.repeats, group, folded, until(self.now_ns, self.lines));
    }

    /// Follows a failure that may be retried.
    fn remember(&mut self, retry: Retry, id: u64) {
        if self.retried.len() >= LOOPS_AT_ONCE {
            // The one that is most likely over. If it is not, the rest of it is another loop.
            let oldest = (0..self.retried.len()).min_by_key(|at| self.retried[*at].last_ns);
            let oldest = oldest.map(|at| self.retried.remove(at));
            if let Some(Retried { group, folded: Some(folded), .. }) = oldest {
                self.repeat(group, folded);
            }
        }
        let (group, last_ns) = (retry.group, self.now_ns);
        self.retried.push(Retried { retry, group, id, last_ns, folded: None });
    }
}

/// When repeats that begin now are over, after that many lines.
fn until(now_ns: u64, lines: usize) -> u64 {
    // At most 10^10 s, which is as long as 64 bits count.
    let longer = u32::try_from(lines / LINES).unwrap_or(u32::MAX).min(10);
    let window_ns = 1_000_000_000_u64.saturating_mul(10_u64.pow(longer));
    (now_ns / window_ns + 1).saturating_mul(window_ns)
}

fn merge(repeats: &mut HashMap<u64, Repeats>, group: u64, folded: Folded, until_ns: u64) {
    match repeats.get_mut(&group) {
        Some(open) => open.folded.merge(folded),
        None => _ = repeats.insert(group, Repeats { until_ns, folded }),
    }
}

fn add_to(folded: &mut Option<Folded>, incident: &Incident) {
    let one = Folded::new(incident);
    match folded {
        Some(folded) => folded.merge(one),
        None => *folded = Some(one),
    }
}

impl Retry {
    /// The loop that an incident belongs to, if it is a retry: an incident without known holders is in none.
    fn of(incident: &Incident, group: u64) -> Option<Self> {
        // A child of the opener that is the victim itself has a copy: each attempt is another child.
        let of_others = |holder: &&Holder| holder.pid != incident.victim.pid;
        let only_itself = !incident.holders.iter().any(|holder| of_others(&holder));
        let mut holders: Vec<_> = incident
            .holders
            .iter()
            .filter(|holder| only_itself || of_others(holder))
            .map(|holder| {
                let opened = holder.opened.as_ref().map(|opened| opened.time_ns);
                (holder.pid, holder.start_ns, opened)
            })
            .collect();
        holders.sort_unstable();
        let places: Vec<_> =
            incident.unheld.iter().map(|it| (it.place, it.device.clone())).collect();
        if holders.is_empty() && places.iter().all(|(place, _)| *place == Place::Unknown) {
            return None;
        }
        let (file, victim) = (&incident.file, &incident.victim);
        Some(Self {
            group,
            direction: incident.direction,
            process: victim.ppid.unwrap_or(victim.pid),
            path: incident.caller_path().map(ToOwned::to_owned),
            inode: (file.dev.clone(), file.ino),
            holders,
            places,
        })
    }
}

impl Folded {
    fn new(incident: &Incident) -> Self {
        let mut file = Shape::default();
        if let Some(path) = incident.caller_path() {
            file.add(path);
        }
        let wait = Wait::of(incident);
        let shared = Arc::new(incident.clone());
        Self {
            first: Arc::clone(&shared),
            last: shared,
            like: None,
            retries_of: None,
            count: 1,
            ids: Ids { ranges: vec![(incident.id, incident.id)], exact: true },
            times_ns: (incident.time_ns, incident.time_ns),
            file,
            verdict: Some(incident.verdict.kind),
            victim: Some(incident.victim.pid),
            waits_ns: if let Wait::Over(ns) = wait { Some((ns, ns)) } else { None },
            endless: u64::from(wait == Wait::Endless),
            unknown: u64::from(wait == Wait::Unknown),
        }
    }

    /// Adds later incidents.
    fn merge(&mut self, later: Self) {
        self.count += later.count;
        self.ids.merge(later.ids);
        self.times_ns.0 = self.times_ns.0.min(later.times_ns.0);
        self.times_ns.1 = self.times_ns.1.max(later.times_ns.1);
        // What is merged is one incident, or a loop whose incidents all have one path.
        if let Some(path) = later.first.caller_path() {
            self.file.add(path);
        }
        self.verdict = self.verdict.filter(|kind| later.verdict == Some(*kind));
        self.victim = self.victim.filter(|pid| later.victim == Some(*pid));
        self.waits_ns = match (self.waits_ns, later.waits_ns) {
            (Some((least, most)), Some((less, more))) => Some((least.min(less), most.max(more))),
            (one, other) => one.or(other),
        };
        self.endless += later.endless;
        self.unknown += later.unknown;
        if later.first.id < self.first.id {
            self.first = later.first;
        }
        self.last = later.last;
    }
}

/// The ids of incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    /// From the lowest to the highest, both included.
    ranges: Vec<(u64, u64)>,
    /// Whether all ids in the ranges are among these incidents.
    exact: bool,
}

impl Ids {
    fn merge(&mut self, other: Self) {
        self.exact &= other.exact;
        self.ranges.extend(other.ranges);
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|later, earlier| {
            let touch = later.0 <= earlier.1.saturating_add(1);
            if touch {
                earlier.1 = earlier.1.max(later.1);
            }
            touch
        });
        if self.ranges.len() > RANGES {
            let last = self.ranges.last().map_or(0, |range| range.1);
            self.ranges = vec![(self.ranges[0].0, last)];
            self.exact = false;
        }
    }

    /// The ids: `#4, #6 to #9`, or `#4 to #12, with gaps`.
    pub(super) fn text(&self) -> String {
        let range = |(from, to): &(u64, u64)| match to - from {
            0 => format!("#{from}"),
            1 => format!("#{from}, #{to}"),
            _ => format!("#{from} to #{to}"),
        };
        let ranges = self.ranges.iter().map(range).collect::<Vec<_>>().join(", ");
        if self.exact { ranges } else { format!("{ranges}, with gaps") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    /// An incident that failed at that time; each has another file, opener's time and parent.
    fn incident(id: u64, time_ns: u64) -> Incident {
        let mut incident = samples::race();
        (incident.id, incident.time_ns) = (id, time_ns);
        incident.path = Some(format!("/tmp/tool-{id}"));
        incident.file.path.clone_from(&incident.path);
        incident.file.ino = Some(id);
        incident
    }

    /// A failure of one process, with one file and one holder.
    fn retry(id: u64, time_ns: u64) -> Incident {
        Incident { id, ..incident(0, time_ns) }
    }

    fn texts(folded: &[Folded]) -> Vec<(String, u64)> {
        folded.iter().map(|one| (one.ids.text(), one.count)).collect()
    }

    #[test]
    fn repeats_of_a_second_fold_when_it_is_over() {
        let mut fold = Fold::default();
        let mut due = Vec::new();
        for id in 1..=10 {
            let (folded, is_full) = fold.add(&incident(id, id * SECOND / 4), 1, id);
            assert_eq!(is_full, id <= 3, "{id}");
            due.extend(folded);
        }
        assert_eq!(texts(&due), [("#4 to #7".to_owned(), 4)]);
        assert_eq!(due[0].file.text().as_deref(), Some("/tmp/tool-*"));
        assert_eq!(due[0].times_ns, (SECOND, 7 * SECOND / 4));
        assert_eq!(texts(&fold.pass(3 * SECOND)), [("#8 to #10".to_owned(), 3)]);
        assert!(fold.end().is_empty());
    }

    #[test]
    fn an_incident_that_settles_late_is_in_the_open_line() {
        let mut fold = Fold::default();
        fold.add(&incident(4, 5 * SECOND), 1, 4);
        fold.add(&incident(5, 3 * SECOND), 1, 5);
        assert_eq!(texts(&fold.end()), [("#4, #5".to_owned(), 2)]);
    }

    #[test]
    fn a_retry_loop_is_one_line_however_long_it_takes() {
        let mut fold = Fold::default();
        for id in 1..=100 {
            let (folded, is_full) = fold.add(&retry(id, id * 3 * SECOND), 1, id);
            assert!(folded.is_empty());
            assert_eq!(is_full, id == 1);
        }
        let end = fold.end();
        assert_eq!(texts(&end), [("#2 to #100".to_owned(), 99)]);
        assert_eq!((end[0].retries_of, end[0].victim), (Some(1), Some(4312)));
    }

    #[test]
    fn another_stack_is_no_other_loop() {
        let mut fold = Fold::default();
        assert!(fold.add(&retry(1, SECOND), 1, 1).1);
        let stacks = samples::with_stacks();
        let mut other = retry(2, SECOND);
        (other.holders, other.victim.stack) = (stacks.holders, stacks.victim.stack);
        assert!(!fold.add(&other, 1, 2).1);
    }

    /// As in a shell that has the file open: each child that tries has a copy.
    #[test]
    fn the_victims_own_copy_does_not_end_a_loop() {
        let mut fold = Fold::default();
        for id in 1..=5 {
            let mut one = retry(id, SECOND);
            let mut own = one.holders[0].clone();
            one.victim.pid = 5000 + u32::try_from(id).unwrap();
            own.pid = one.victim.pid;
            one.holders.push(own);
            assert_eq!(fold.add(&one, 1, id).1, id == 1);
        }
        let end = fold.end();
        assert_eq!((texts(&end), end[0].victim), (vec![("#2 to #5".to_owned(), 4)], None));
    }

    #[test]
    fn another_holder_victim_or_file_is_another_loop() {
        let changes: [fn(&mut Incident); 4] = [
            |it| it.holders[0].pid += 1,
            |it| it.holders[0].start_ns = Some(5),
            |it| it.victim.ppid = Some(9),
            |it| it.file.ino = Some(77),
        ];
        for change in changes {
            let mut fold = Fold::default();
            fold.add(&retry(1, SECOND), 1, 1);
            let mut other = retry(2, SECOND);
            change(&mut other);
            assert!(fold.add(&other, 1, 2).1);
        }
        let mut fold = Fold::default();
        fold.add(&retry(1, SECOND), 1, 1);
        assert!(fold.add(&retry(2, 12 * SECOND), 1, 2).1, "the gap is too long");
        let mut unexplained = samples::unexplained();
        let mut fold = Fold::default();
        for id in 1..=3 {
            unexplained.id = id;
            assert!(fold.add(&unexplained, 1, id).1, "nothing shows who held it");
        }
    }

    #[test]
    fn more_groups_than_fit_are_not_shown_in_full() {
        let mut fold = Fold::default();
        let full = (1..=100).filter(|id| fold.add(&incident(*id, SECOND), *id, 1).1).count();
        assert_eq!(full, GROUPS_IN_FULL);
        assert_eq!(fold.end().len(), 80);
    }

    #[test]
    fn ids_are_listed_or_counted() {
        let ids = |each: &[u64]| {
            let mut all = Ids { ranges: Vec::new(), exact: true };
            for id in each {
                all.merge(Ids { ranges: vec![(*id, *id)], exact: true });
            }
            all.text()
        };
        assert_eq!(ids(&[4]), "#4");
        assert_eq!(ids(&[5, 4]), "#4, #5");
        assert_eq!(ids(&[4, 6, 8, 7]), "#4, #6 to #8");
        assert_eq!(ids(&[2, 4, 6, 8, 10]), "#2 to #10, with gaps");
        assert_eq!(ids(&[2, 4, 6, 8, 10, 3]), "#2 to #10, with gaps");
    }

    #[test]
    fn a_hundred_thousand_incidents_are_a_page_or_two() {
        for step_ns in [1_000, SECOND / 1000, SECOND, 3_600 * SECOND] {
            let mut fold = Fold::default();
            let (mut lines, mut full) = (0, 0);
            let mut counts = [0; 4];
            for id in 1..=100_000_u64 {
                let group = id % 4;
                counts[group as usize] += 1;
                // Half of them are short retry loops.
                let mut one = incident(if group < 2 { id } else { id / 12 }, id * step_ns);
                one.id = id;
                let (folded, is_full) = fold.add(&one, group, counts[group as usize]);
                lines += folded.len();
                full += usize::from(is_full);
            }
            lines += fold.end().len();
            assert!(full <= 12 && lines <= 240, "{step_ns}: {full} in full, {lines} lines");
        }
    }

    proptest! {
        #[test]
        fn no_incident_is_lost(
            stream in prop::collection::vec((0u64..40, 0u64..6, 0u64..3_000_000_000, any::<bool>()), 0..400)
        ) {
            let mut fold = Fold::default();
            let (mut full, mut folded, mut ids) = (0, 0, Vec::new());
            let mut counts = [0; 40];
            let mut time_ns = 0;
            let mut due = Vec::new();
            for (id, (group, file, later_ns, is_late)) in (1..).zip(&stream) {
                time_ns += later_ns;
                counts[*group as usize] += 1;
                let at = if *is_late { time_ns.saturating_sub(2 * SECOND) } else { time_ns };
                let one = Incident { id, ..incident(*file, at) };
                let (lines, is_full) = fold.add(&one, *group, counts[*group as usize]);
                due.extend(lines);
                if is_full {
                    full += 1;
                    ids.push(id);
                }
            }
            due.extend(fold.end());
            for line in &due {
                folded += line.count;
                let (least, most) = line.waits_ns.unwrap_or_default();
                prop_assert!(least <= most && line.times_ns.0 <= line.times_ns.1);
                let covered: Vec<u64> =
                    line.ids.ranges.iter().flat_map(|(from, to)| *from..=*to).collect();
                if line.ids.exact {
                    prop_assert_eq!(covered.len() as u64, line.count);
                    ids.extend(covered);
                } else {
                    prop_assert!(covered.len() as u64 >= line.count);
                }
            }
            prop_assert_eq!(full + folded, stream.len() as u64);
            ids.sort_unstable();
            let given = ids.len();
            ids.dedup();
            prop_assert_eq!(ids.len(), given, "an incident is in two lines");
        }
    }
}
