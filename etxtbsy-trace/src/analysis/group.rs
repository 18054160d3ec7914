//! Groups: incidents that have one cause, counted together in bounded memory.
//!
//! The names of files are no part of a cause: programs make them up. Who opened the file, who held
//! it, the verdict and the shape of the directory are.

use crate::{
    analysis::{
        names::{Shape, directory, pattern},
        programs::{base, child_of, holder_program, opener_program},
        verdict,
        wait::Wait,
    },
    event::{Direction, Incident, Place, VerdictKind},
    text,
};
use hdrhistogram::Histogram;
use std::collections::HashMap;

/// How many groups are counted one by one; the incidents of all others are one group.
pub const GROUPS: usize = 500;
/// The upper bounds of the sizes of waits in [`Tally::histogram`], in nanoseconds.
const SIZES: [u64; 6] = [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
/// What the incidents of one group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cause {
    /// What they come to.
    pub verdict: VerdictKind,
    /// Which way round.
    pub direction: Direction,
    /// The directory of the busy file: [`directory`].
    pub directory: Option<String>,
    /// The program that opened it.
    pub opener: Option<String>,
    /// The program that held it, or whose child did.
    pub holder: Option<String>,
}

impl Cause {
    /// The cause of an incident.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let culprit = verdict::culprit(incident);
        let unheld = incident.unheld.first().filter(|_| culprit.is_none());
        let opener = match (culprit, unheld) {
            (Some(holder), _) => {
                holder.opened.as_ref().and_then(|opened| opener_program(holder, opened))
            }
            (None, Some(unheld)) => {
                unheld.opened.as_ref().and_then(|opened| opened.comm.as_deref()).map(pattern)
            }
            (None, None) => None,
        };
        let place = unheld.filter(|unheld| unheld.place != Place::Unknown).map(|unheld| {
            let device = unheld.device.as_deref().map(|device| format!(" {}", pattern(device)));
            text::name(unheld.place) + &device.unwrap_or_default()
        });
        let holder = culprit.and_then(|holder| match incident.verdict.kind {
            // A helper that the child has become is the same child.
            VerdictKind::ForkExecRace => child_of(holder),
            _ => holder_program(holder),
        });
        Self {
            verdict: incident.verdict.kind,
            direction: incident.direction,
            directory: file(incident).map(directory),
            opener,
            holder: holder.or(place),
        }
    }
}

/// The path of the busy file, as far as it is known.
fn file(incident: &Incident) -> Option<&str> {
    incident.file.path.as_deref().or(incident.path.as_deref())
}

/// What is counted of the incidents of one group.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// How many are complete.
    pub explained: u64,
    /// In how many somebody still held the file.
    pub endless: u64,
    /// The ids of the first and the last.
    pub ids: (u64, u64),
    /// The busy files.
    pub file: Shape,
    /// The programs whose calls failed.
    pub victim: Shape,
    /// The programs whose exec made the culprits drop the file.
    pub exec: Shape,
    /// The waits that ended.
    waits: Waits,
}

impl Tally {
    /// Nothing yet, from incident `id` on.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            count: 0,
            explained: 0,
            endless: 0,
            ids: (id, id),
            file: Shape::default(),
            victim: Shape::default(),
            exec: Shape::default(),
            waits: Waits::new(),
        }
    }

    /// Counts an incident.
    pub fn add(&mut self, incident: &Incident) {
        self.count += 1;
        self.explained += u64::from(incident.complete);
        self.ids.1 = incident.id;
        if let Some(file) = file(incident) {
            self.file.add(file);
        }
        let victim = &incident.victim;
        if let Some(victim) = victim.exe.as_deref().map(base).or(victim.comm.as_deref()) {
            self.victim.add(victim);
        }
        let released = verdict::culprit(incident).and_then(|holder| holder.released.as_ref());
        if let Some(exec) = released.and_then(|released| released.exec.as_deref()) {
            self.exec.add(exec);
        }
        match Wait::of(incident) {
            Wait::Over(ns) => self.waits.add(ns),
            Wait::Endless => self.endless += 1,
            Wait::Unknown => {}
        }
    }

    /// The median (within 1 %) and the longest of the waits that ended, in nanoseconds.
    #[must_use]
    pub fn waits(&self) -> Option<(u64, u64)> {
        self.waits.median_and_max()
    }

    /// How many of the waits that ended are of each size: the upper bound of the size in nanoseconds,
    /// `None` for all longer ones, and the number.
    #[must_use]
    pub fn histogram(&self) -> [(Option<u64>, u64); SIZES.len() + 1] {
        let mut below = None;
        std::array::from_fn(|at| {
            let to = SIZES.get(at).copied();
            let from = below.map_or(0, |below: u64| below + 1);
            below = to;
            (to, self.waits.between(from, to.unwrap_or(u64::MAX)))
        })
    }

    /// The longest of them.
    #[must_use]
    pub fn longest(&self) -> Option<u64> {
        (self.waits.least <= self.waits.most).then_some(self.waits.most)
    }
}

/// Durations in nanoseconds, of which only how many there are of each size is kept.
#[derive(Clone, Debug)]
struct Waits {
    /// To two digits; it grows with the longest, to some 20 KiB.
    sizes: Option<Histogram<u32>>,
    least: u64,
    most: u64,
}

impl Waits {
    /// None yet.
    fn new() -> Self {
        Self { sizes: Histogram::new(2).ok(), least: u64::MAX, most: 0 }
    }

    /// Adds one.
    fn add(&mut self, ns: u64) {
        self.least = self.least.min(ns);
        self.most = self.most.max(ns);
        if let Some(sizes) = &mut self.sizes {
            // Fails for lengths of centuries, which no clock of ours shows.
            let _ = sizes.record(ns);
        }
    }

    /// How many are between these two, both included, within 1 %.
    fn between(&self, from: u64, to: u64) -> u64 {
        self.sizes.as_ref().map_or(0, |sizes| {
            sizes
                .iter_recorded()
                .map(|it| (it.value_iterated_to(), it.count_at_value()))
                .filter(|(value, _)| (from..=to).contains(&sizes.lowest_equivalent(*value)))
                .map(|(_, count)| u64::from(count))
                .sum()
        })
    }

    /// The median, within 1 %, and the longest.
    fn median_and_max(&self) -> Option<(u64, u64)> {
        let sizes = self.sizes.as_ref().filter(|sizes| !sizes.is_empty())?;
        let median = sizes.value_at_quantile(0.5);
        Some((median.clamp(self.least, self.most), self.most))
    }
}

/// What is kept of a group: its [`Tally`], or more.
pub trait Member {
    /// What is known of an incident besides its line.
    type Origin: Copy;

    /// An empty group, which `first` will be added to.
    fn new(first: &Incident, origin: Self::Origin) -> Self;
    /// Counts an incident.
    fn add(&mut self, incident: &Incident, origin: Self::Origin);
    /// What is counted.
    fn tally(&self) -> &Tally;
    /// The order of groups that are equally frequent.
    fn order(&self) -> (u64, u64);
}

impl Member for Tally {
    type Origin = ();

    fn new(first: &Incident, (): ()) -> Self {
        Self::new(first.id)
    }

    fn add(&mut self, incident: &Incident, (): ()) {
        self.add(incident);
    }

    fn tally(&self) -> &Tally {
        self
    }

    fn order(&self) -> (u64, u64) {
        self.ids
    }
}

/// All groups.
#[derive(Clone, Debug)]
pub struct Groups<M = Tally> {
    known: HashMap<Cause, M>,
    other: Option<M>,
}

impl<M> Default for Groups<M> {
    fn default() -> Self {
        Self { known: HashMap::new(), other: None }
    }
}

impl Groups {
    /// Counts an incident; gives back the tally it now belongs to.
    pub fn add(&mut self, incident: &Incident) -> &Tally {
        self.add_from(incident, ())
    }
}

impl<M: Member> Groups<M> {
    /// Counts an incident; gives back the group it now belongs to.
    pub fn add_from(&mut self, incident: &Incident, origin: M::Origin) -> &M {
        let cause = Cause::of(incident);
        let new = || M::new(incident, origin);
        let group = if self.known.len() < GROUPS || self.known.contains_key(&cause) {
            self.known.entry(cause).or_insert_with(new)
        } else {
            self.other.get_or_insert_with(new)
        };
        group.add(incident, origin);
        group
    }

    /// The groups, the most frequent first.
    #[must_use]
    pub fn all(&self) -> Vec<(&Cause, &M)> {
        let mut all: Vec<_> = self.known.iter().collect();
        all.sort_by_key(|(_, group)| (std::cmp::Reverse(group.tally().count), group.order()));
        all
    }

    /// The group of a cause.
    #[must_use]
    pub fn of(&self, cause: &Cause) -> Option<&M> {
        self.known.get(cause)
    }

    /// The incidents of all groups beyond [`GROUPS`].
    #[must_use]
    pub fn other(&self) -> Option<&M> {
        self.other.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::State, output::samples};

    #[test]
    fn stacks_are_no_part_of_a_cause() {
        assert_eq!(Cause::of(&samples::with_stacks()), Cause::of(&samples::race()));
    }

    #[test]
    fn the_shape_of_names_is_what_they_have_in_common() {
        let shape = |names: &[&str]| {
            let mut shape = Shape::default();
            for name in names {
                shape.add(name);
            }
            shape.text()
        };
        let cases: [(&[&str], Option<&str>); 7] = [
            (&[], None),
            (&["/a/b", "/a/b"], Some("/a/b")),
            (&["/tmp/hook-x1.sh", "/tmp/hook-y2.sh"], Some("/tmp/hook-*.sh")),
            (&["aa", "a"], Some("a*")),
            (&["a", "aa", "aba"], Some("a*")),
            (&["x/é1", "x/ê1"], Some("x/*1")),
            (&["one", "two", "three"], Some("*")),
        ];
        for (names, text) in cases {
            assert_eq!(shape(names).as_deref(), text, "{names:?}");
        }
    }

    #[test]
    fn the_longest_wait_counts() {
        let mut incident = samples::race();
        assert_eq!(Wait::of(&incident), Wait::Over(180_000));
        let mut slower = incident.holders[0].clone();
        for (after, wait) in [(900_000, 900_000), (-5, 180_000)] {
            slower.released.iter_mut().for_each(|r| r.after_ns = after);
            incident.holders.push(slower.clone());
            assert_eq!(Wait::of(&incident), Wait::Over(wait));
            incident.holders.pop();
        }
        slower.released = None;
        incident.holders.push(slower);
        assert_eq!(Wait::of(&incident), Wait::Endless);
        assert_eq!(Wait::of(&samples::unexplained()), Wait::Unknown);
    }

    #[test]
    fn an_incident_counts_once_in_its_group() {
        let mut groups = Groups::default();
        for id in 1..=9 {
            let mut incident = samples::race();
            incident.id = id;
            incident.file.path = Some(format!("/var/tmp/fork-exec-{id}"));
            incident.holders[0].released.iter_mut().for_each(|r| {
                r.after_ns = i64::try_from(id).unwrap_or(0) * 1_000_000;
            });
            assert_eq!(groups.add(&incident).count, id);
        }
        let mut leak = samples::leaked();
        leak.id = 10;
        groups.add(&leak);
        let all = groups.all();
        assert_eq!(all.len(), 2);
        let (_, tally) = all[0];
        assert_eq!(tally.file.text().as_deref(), Some("/var/tmp/fork-exec-*"));
        assert_eq!((tally.count, tally.explained, tally.ids), (9, 9, (1, 9)));
        let (median, max) = tally.waits().unwrap_or_default();
        assert!(median.abs_diff(5_000_000) <= 50_000, "{median}");
        assert_eq!(max, 9_000_000);
        assert_eq!((all[1].1.endless, all[1].1.waits()), (1, None));
    }

    /// Names as mkstemp, uuid, Go, Java, pytest and tempfile make them.
    #[test]
    fn one_cause_is_one_group_whatever_the_files_are_called() {
        let letters = |mut n: u64, most: usize| -> String {
            let mut name = String::new();
            for _ in 0..most {
                n = n
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                name.push(char::from(
                    b"abcdefghijklmnopqrstuvwxyz0123456789_"[(n >> 33) as usize % 37],
                ));
            }
            name
        };
        let makers: [&dyn Fn(u64) -> String; 9] = [
            &|n| format!("/tmp/hook-{}", letters(n, 8)),
            &|n| format!("/tmp/tmp{}", letters(n, 8)),
            &|n| format!("/tmp/tmp{}/tool", letters(n, 8)),
            &|n| format!("/tmp/stage-{}/tool", letters(n, 8)),
            &|n| format!("/tmp/.tmp{}/tool", letters(n, 6).replace('_', "A")),
            &|n| {
                format!(
                    "/srv/{:08x}-e29b-41d4-a716-{:012x}/tool",
                    n * 0x0123_4567 % 0xffff_ffff,
                    n * 77
                )
            },
            &|n| format!("/tmp/go-build{}/b001/exe/tool", n * 7_919_999),
            &|n| format!("/tmp/jvm{}/tool", n * 7_919_999_999),
            &|n| format!("/tmp/pytest-of-root/pytest-3/test_{}0/bin/tool", letters(n, 5)),
        ];
        for (at, maker) in makers.iter().enumerate() {
            let mut groups = Groups::default();
            for n in 1..=60 {
                let mut incident = samples::race();
                incident.path = Some(maker(n));
                incident.file.path.clone_from(&incident.path);
                // Whatever the threads are called, and whatever the child runs in the end.
                let holder = &mut incident.holders[0];
                holder.pid += n as u32;
                holder.comm = Some(format!("worker-{n}"));
                holder.opened.as_mut().unwrap().comm = Some(format!("worker-{n}"));
                holder.released.as_mut().unwrap().exec = Some(maker(n + 1));
                incident.victim.comm = Some(format!("worker-{n}"));
                groups.add(&incident);
            }
            let all = groups.all();
            assert_eq!(all.len(), 1, "{at}: {:#?}", all.iter().map(|it| it.0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn other_causes_are_other_groups() {
        let mut groups = Groups::default();
        let mut add = |change: &dyn Fn(&mut Incident)| {
            let mut incident = samples::leaked();
            change(&mut incident);
            groups.add(&incident);
            groups.all().len()
        };
        assert_eq!(add(&|_| {}), 1);
        assert_eq!(add(&|it| it.holders[0].exe = Some("/usr/sbin/daemon2".to_owned())), 2);
        assert_eq!(add(&|it| it.holders[0].ancestors[0].comm = Some("other".to_owned())), 3);
        assert_eq!(add(&|it| it.file.path = Some("/opt/x".to_owned())), 4);
        assert_eq!(add(&|it| it.verdict.kind = VerdictKind::PassedFd), 5);
        assert_eq!(add(&|it| it.file.path = Some("/bin/other".to_owned())), 5);
    }

    /// A child, and the helper that it becomes.
    #[test]
    fn the_helper_of_a_jvm_is_in_the_group_of_its_child() {
        let mut groups = Groups::default();
        let mut incident = samples::race();
        groups.add(&incident);
        let holder = &mut incident.holders[0];
        (holder.state, holder.exe) = (State::Running, Some("/lib/jspawnhelper".to_owned()));
        assert_eq!(groups.add(&incident).count, 2);
        let cause = Cause::of(&incident);
        assert_eq!(cause.holder.as_deref(), Some("a child of demo"));
    }

    #[test]
    fn each_wait_is_in_one_size() {
        let mut tally = Tally::new(1);
        for ns in [0, 9_000, 10_000, 10_200, 950_000, 5_000_000_000, i64::MAX.unsigned_abs()] {
            tally.waits.add(ns);
        }
        let counts = tally.histogram().map(|(_, count)| count);
        assert_eq!(counts, [3, 1, 1, 0, 0, 0, 2]);
        assert_eq!(tally.histogram()[0].0, Some(10_000));
        assert_eq!(tally.histogram()[6].0, None);
    }

    #[test]
    fn one_wait_is_its_own_median() {
        for ns in [0, 180_123, i64::MAX.unsigned_abs()] {
            let mut waits = Waits::new();
            assert_eq!(waits.median_and_max(), None);
            waits.add(ns);
            assert_eq!(waits.median_and_max(), Some((ns, ns)));
        }
    }

    #[test]
    fn endlessly_many_groups_take_bounded_memory_and_lose_no_count() {
        let mut groups = Groups::default();
        let mut incident = samples::race();
        for id in 1..=2_000 {
            incident.id = id;
            // Letters only: digits would be folded.
            let name: String = id.to_string().bytes().map(|b| char::from(b + 55)).collect();
            incident.file.path = Some(format!("/{name}/tool"));
            groups.add(&incident);
        }
        assert_eq!(groups.all().len(), GROUPS);
        let known: u64 = groups.all().iter().map(|(_, tally)| tally.count).sum();
        let other = groups.other().map_or(0, |tally| tally.count);
        assert_eq!((known, other), (500, 1_500));
        assert_eq!(groups.other().map(|tally| tally.ids), Some((501, 2_000)));
    }
}
