//! Incidents that tell the same story, counted together in bounded memory.

use crate::lines::{Direction, Holder, Incident, VerdictKind};
use hdrhistogram::Histogram;
use std::collections::HashMap;

/// How many stories are told apart; those after are counted as one.
pub const STORIES: usize = 500;
/// How many characters of a name tell stories apart.
const NAME: usize = 200;

/// What incidents have in common that happened for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Story {
    /// What they come to.
    pub verdict: VerdictKind,
    /// Which way round.
    pub direction: Direction,
    /// The program the victim was running, without its directory, or the victim's name.
    pub victim: Option<String>,
    /// The busy file.
    pub file: Option<String>,
    /// The thread that opened it for the first holder.
    pub opener: Option<String>,
    /// The first holder.
    pub holder: Option<String>,
    /// The program whose exec made the first holder let go.
    pub exec: Option<String>,
}

impl Story {
    /// The story of an incident; in all its names, [`pattern`] stands for what differs by chance.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let first = incident.holders.first();
        let opened = first.and_then(|holder| holder.opened.as_ref());
        let released = first.and_then(|holder| holder.released.as_ref());
        let victim = &incident.victim;
        let program = victim.exe.as_deref().map(base).or(victim.comm.as_deref());
        let file = incident.file.path.as_ref().or(incident.path.as_ref());
        let name = |name: Option<&str>| name.map(pattern);
        Self {
            verdict: incident.verdict.kind,
            direction: incident.direction,
            victim: name(program),
            file: name(file.map(String::as_str)),
            opener: name(opened.and_then(|opened| opened.comm.as_deref())),
            holder: name(first.and_then(|holder| holder.comm.as_deref())),
            exec: name(released.and_then(|released| released.exec.as_deref())),
        }
    }
}

/// The last component of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A name with `N` for each run of digits, and for what looks made up by a program: hexadecimal
/// ids, long mixtures of letters and digits, the random end of `tmp.Ab3dE`.
#[must_use]
pub fn pattern(name: &str) -> String {
    // The end of a path says more than its beginning.
    let skipped = name.chars().count().saturating_sub(NAME);
    let kept: String = name.chars().skip(skipped).collect();
    let components: Vec<String> = kept.split('/').map(component).collect();
    components.join("/")
}

/// [`pattern`] for one component of a path.
fn component(name: &str) -> String {
    let bare = name.strip_prefix('.').unwrap_or(name);
    if let Some(random) = bare.strip_prefix("tmp") {
        let random = random.strip_prefix(['.', '-', '_']).unwrap_or(random);
        let made_up = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // mkstemp makes six characters, and nobody makes fewer.
        if random.len() >= 6 && random.chars().all(made_up) {
            return format!("{}N", &name[..name.len() - random.len()]);
        }
    }
    let mut out = String::new();
    for run in name.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = run.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let digit = word.bytes().any(|byte| byte.is_ascii_digit());
        let hex = word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digit && (hex || word.len() >= 16) {
            out.push('N');
        } else {
            let mut last = ' ';
            for c in word.chars() {
                if !c.is_ascii_digit() {
                    out.push(c);
                } else if !last.is_ascii_digit() {
                    out.push('N');
                }
                last = c;
            }
        }
        out += &run[word.len()..];
    }
    out
}

/// Until when the file was busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The last known holder had let go that many nanoseconds after the failure.
    Over(u64),
    /// Somebody still held it.
    Endless,
    /// Nobody is known to have held it.
    Unknown,
}

impl Wait {
    /// How long a retry of this call would have had to wait.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let after = |holder: &Holder| {
            let released = holder.released.as_ref()?;
            Some(released.after_ns.max(0).unsigned_abs())
        };
        let all: Option<Vec<u64>> = incident.holders.iter().map(after).collect();
        match all.map(|waits| waits.into_iter().max()) {
            None => Self::Endless,
            Some(None) => Self::Unknown,
            Some(Some(longest)) => Self::Over(longest),
        }
    }
}

/// What is counted of the incidents of one story.
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
    /// The waits that ended.
    waits: Waits,
}

impl Tally {
    /// Nothing yet, from incident `id` on.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { count: 0, explained: 0, endless: 0, ids: (id, id), waits: Waits::new() }
    }

    /// Counts an incident.
    pub fn add(&mut self, incident: &Incident) {
        self.count += 1;
        self.explained += u64::from(incident.complete);
        self.ids.1 = incident.id;
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

    /// The median, within 1 %, and the longest.
    fn median_and_max(&self) -> Option<(u64, u64)> {
        let sizes = self.sizes.as_ref().filter(|sizes| !sizes.is_empty())?;
        let median = sizes.value_at_quantile(0.5);
        Some((median.clamp(self.least, self.most), self.most))
    }
}

/// How often each story was seen.
#[derive(Clone, Debug, Default)]
pub struct Stories {
    told: HashMap<Story, Tally>,
    other: Option<Tally>,
}

impl Stories {
    /// Counts an incident; gives back the tally it now belongs to.
    pub fn add(&mut self, incident: &Incident) -> &Tally {
        let story = Story::of(incident);
        let new = || Tally::new(incident.id);
        let tally = if self.told.len() < STORIES || self.told.contains_key(&story) {
            self.told.entry(story).or_insert_with(new)
        } else {
            self.other.get_or_insert_with(new)
        };
        tally.add(incident);
        tally
    }

    /// The stories, the most frequent first.
    #[must_use]
    pub fn told(&self) -> Vec<(&Story, &Tally)> {
        let mut told: Vec<_> = self.told.iter().collect();
        told.sort_by_key(|(_, tally)| (std::cmp::Reverse(tally.count), tally.ids));
        told
    }

    /// The incidents of all stories beyond those that are told apart.
    #[must_use]
    pub fn other(&self) -> Option<&Tally> {
        self.other.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn what_differs_by_chance_is_folded() {
        let cases = [
            ("/var/tmp/fork-exec-17", "/var/tmp/fork-exec-N"),
            ("worker-3", "worker-N"),
            ("tool1234.sh", "toolN.sh"),
            ("/usr/bin/e2fsck", "/usr/bin/eNfsck"),
            ("/tmp/.tmpAbCdEf/fake", "/tmp/.tmpN/fake"),
            ("/tmp/tmp.XyZabcDEFg", "/tmp/tmp.N"),
            ("/tmp/tmpab_cdefg/x", "/tmp/tmpN/x"),
            ("/tmp/tmpfs/x", "/tmp/tmpfs/x"),
            ("target/debug/deps/foo-1a2b3c4d5e6f7a8b", "target/debug/deps/foo-N"),
            ("550e8400-e29b-41d4-a716-446655440000", "N-N-N-N-N"),
            ("/tmp/go-build2718281828/b001/exe/a.out", "/tmp/go-buildN/N/exe/a.out"),
            ("/nix/store/0c9q4h2vxkfzj8d7-hello", "/nix/store/N-hello"),
            ("/bin/bash", "/bin/bash"),
            ("ファイル2", "ファイルN"),
            ("", ""),
        ];
        for (name, folded) in cases {
            assert_eq!(pattern(name), folded);
        }
        assert_eq!(pattern(&"x".repeat(5000)).len(), NAME);
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
    fn a_story_is_counted_once_per_incident() {
        let mut stories = Stories::default();
        for id in 1..=9 {
            let mut incident = samples::race();
            incident.id = id;
            incident.file.path = Some(format!("/var/tmp/fork-exec-{id}"));
            incident.holders[0].released.iter_mut().for_each(|r| {
                r.after_ns = i64::try_from(id).unwrap_or(0) * 1_000_000;
            });
            assert_eq!(stories.add(&incident).count, id);
        }
        let mut leak = samples::leaked();
        leak.id = 10;
        stories.add(&leak);
        let told = stories.told();
        assert_eq!(told.len(), 2);
        let (story, tally) = told[0];
        assert_eq!(story.file.as_deref(), Some("/var/tmp/fork-exec-N"));
        assert_eq!((tally.count, tally.explained, tally.ids), (9, 9, (1, 9)));
        let (median, max) = tally.waits().unwrap_or_default();
        assert!(median.abs_diff(5_000_000) <= 50_000, "{median}");
        assert_eq!(max, 9_000_000);
        assert_eq!((told[1].1.endless, told[1].1.waits()), (1, None));
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
    fn endlessly_many_stories_take_bounded_memory_and_lose_no_count() {
        let mut stories = Stories::default();
        let mut incident = samples::race();
        let names = |n: u64| n.to_string().replace(|c: char| c.is_ascii_digit(), "x");
        for id in 1..=2_000 {
            incident.id = id;
            // Letters only: digits would be folded.
            let name: String = id.to_string().bytes().map(|b| char::from(b + 32)).collect();
            incident.file.path = Some(format!("/{}/{name}", names(id)));
            stories.add(&incident);
        }
        assert_eq!(stories.told().len(), STORIES);
        let told: u64 = stories.told().iter().map(|(_, tally)| tally.count).sum();
        let other = stories.other().map_or(0, |tally| tally.count);
        assert_eq!((told, other), (500, 1_500));
        assert_eq!(stories.other().map(|tally| tally.ids), Some((501, 2_000)));
    }
}
