//! What was traced, and the totals of it: the lines that are no incident.

use std::collections::BTreeMap;

use crate::{
    event::{Execs, LossKind, Lost, Meta, Refusal, Summary},
    output::text::watched,
    text::{escape::Charset, name},
};

/// How many runs are kept one by one.
const RUNS: usize = 1_000;
/// How many system calls of `refusal` lines, and kinds of losses, are counted one by one.
const WORDS: usize = 32;
/// The columns of a command line.
const COMMAND: usize = 80;
/// The longest text of a `meta` line that is kept, in columns.
const TEXT: usize = 64;

/// One trace. The files of a rotated set are one.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The index of the first file that has it.
    pub file: usize,
    /// Whether more files have it.
    pub has_more_files: bool,
    /// What it traced; `None` without a `meta` line.
    pub begin: Option<Begin>,
    /// How many incidents were read of it.
    pub incidents: u64,
    /// How many things its `lost` lines count.
    pub lost: u64,
    /// Its last line; `None` if there is none, because the trace was killed or its end was cut off.
    pub end: Option<Summary>,
}

/// What a `meta` line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The version of this program.
    pub version: String,
    /// The kernel and the architecture.
    pub kernel: String,
    /// When tracing began, as recorded.
    pub time: String,
    /// The same on the machine's monotonic clock.
    time_ns: u64,
    /// What was traced, in words.
    pub watched: String,
}

impl Begin {
    fn new(meta: &Meta) -> Self {
        let short = |text: &str| text.chars().take(TEXT).collect::<String>();
        Self {
            version: short(&meta.version),
            kernel: format!("{} {}", short(&meta.kernel), short(&meta.arch)),
            time: short(&meta.time),
            time_ns: meta.time_ns,
            watched: watched(&meta.filter, COMMAND, Charset::Unicode),
        }
    }
}

/// What is counted of one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The cause in words.
    pub what: String,
    /// How many.
    pub count: u64,
}

/// All runs.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    known: Vec<Run>,
    /// The runs beyond [`RUNS`], as one.
    pub other: Option<Run>,
    /// How many those are.
    pub others: u64,
    current: usize,
    /// Whether no line of the current run was read yet. It is then the last one.
    is_fresh: bool,
    /// What was lost, by kind.
    pub lost: BTreeMap<String, Count>,
    /// Calls that are only counted, by system call.
    pub refusals: BTreeMap<String, u64>,
}

/// Sums over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many calls failed, including those without details.
    pub failures: u64,
    /// How many calls were only counted.
    pub refusals: u64,
    /// How many failures outside of the traced trees are not shown.
    pub elsewhere: u64,
    /// How many things were lost.
    pub lost: u64,
    /// How many runs have no `summary` line.
    pub unfinished: u64,
    /// How many execs there were, in the recordings that say so.
    pub execs: Execs,
    /// How many of those that succeeded could have failed.
    pub near_misses: u64,
    /// How long was traced, in nanoseconds, if all runs say so.
    pub duration_ns: Option<u64>,
}

impl Runs {
    /// A file begins; its lines belong to a new run until a `meta` line says more.
    pub fn file(&mut self, file: usize) {
        self.push(Run { file, ..Run::default() });
    }

    /// A `meta` line.
    pub fn begin(&mut self, file: usize, meta: &Meta) {
        let begin = Begin::new(meta);
        if let Some(known) = self.known.iter().position(|run| run.begin.as_ref() == Some(&begin)) {
            // The first line of another file of the set: that file is no run of its own.
            if self.is_fresh && self.current == RUNS {
                self.others -= 1;
            } else if self.is_fresh {
                self.known.pop();
            }
            self.known[known].has_more_files |= self.known[known].file != file;
            (self.current, self.is_fresh) = (known, false);
            return;
        }
        if !self.is_fresh {
            self.push(Run { file, ..Run::default() });
        }
        self.run_mut().begin = Some(begin);
    }

    fn push(&mut self, run: Run) {
        if self.known.len() < RUNS {
            self.current = self.known.len();
            self.known.push(run);
        } else {
            self.current = RUNS;
            self.others += 1;
            self.other.get_or_insert(run);
        }
        self.is_fresh = true;
    }

    /// The current run, which a line belongs to.
    fn run_mut(&mut self) -> &mut Run {
        self.is_fresh = false;
        match self.known.get_mut(self.current) {
            Some(run) => run,
            None => self.other.get_or_insert_default(),
        }
    }

    /// Counts an incident; returns the index of its run.
    pub fn incident(&mut self) -> usize {
        self.run_mut().incidents += 1;
        self.current
    }

    /// A `lost` line.
    pub fn lost(&mut self, lost: &Lost) {
        self.run_mut().lost += lost.count;
        let kind = if lost.kind == LossKind::Unknown { lost.what.clone() } else { name(lost.kind) };
        let mut kind: String = kind.chars().take(TEXT).collect();
        if self.lost.len() >= WORDS && !self.lost.contains_key(&kind) {
            "other".clone_into(&mut kind);
        }
        let entry = self.lost.entry(kind).or_default();
        entry.count += lost.count;
        if entry.what.is_empty() {
            entry.what = lost.what.chars().take(2 * TEXT).collect();
        }
    }

    /// A `refusal` line.
    pub fn refusal(&mut self, refusal: &Refusal) {
        let mut call: String = refusal.syscall.chars().take(TEXT).collect();
        if self.refusals.len() >= WORDS && !self.refusals.contains_key(&call) {
            "other".clone_into(&mut call);
        }
        *self.refusals.entry(call).or_default() += refusal.count;
    }

    /// A `summary` line.
    pub fn end(&mut self, summary: &Summary) {
        let is_sum = self.current == RUNS;
        let run = self.run_mut();
        // The totals are enough; the maps can be large.
        let counts = Summary {
            by_verdict: BTreeMap::new(),
            unexplained_by: BTreeMap::new(),
            change_first: None,
            ..summary.clone()
        };
        match &mut run.end {
            // The run that stands for all others has several.
            Some(end) if is_sum => {
                end.failures += counts.failures;
                end.refusals += counts.refusals;
                end.elsewhere += counts.elsewhere;
                end.lost += counts.lost;
                end.near_misses += counts.near_misses;
                end.execs = sum(end.execs, counts.execs);
                end.duration_ns = end.duration_ns.saturating_add(counts.duration_ns);
            }
            end => *end = Some(counts),
        }
    }

    /// The runs that are kept one by one.
    #[must_use]
    pub fn each(&self) -> &[Run] {
        &self.known
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.known.len() as u64 + self.others
    }

    /// The sums.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { duration_ns: Some(0), ..Totals::default() };
        for run in self.known.iter().chain(&self.other) {
            let end = run.end.as_ref();
            let of = |count: fn(&Summary) -> u64| end.map_or(0, count);
            totals.failures += of(|end| end.failures).max(run.incidents);
            totals.refusals += of(|end| end.refusals);
            totals.elsewhere += of(|end| end.elsewhere);
            totals.lost += of(|end| end.lost).max(run.lost);
            totals.near_misses += of(|end| end.near_misses);
            let execs = sum(Some(totals.execs), end.and_then(|end| end.execs));
            totals.execs = execs.unwrap_or_default();
            totals.unfinished += u64::from(end.is_none());
            let both = totals.duration_ns.zip(end.map(|end| end.duration_ns));
            totals.duration_ns = both.map(|(sum, one)| sum.saturating_add(one));
        }
        // Without a summary, the lines are all that is known.
        totals.refusals = totals.refusals.max(self.refusals.values().sum());
        totals
    }
}

/// The execs of two recordings; what one does not say counts as none.
fn sum(a: Option<Execs>, b: Option<Execs>) -> Option<Execs> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    Some(Execs {
        total: a.total + b.total,
        of_written_files: a.of_written_files + b.of_written_files,
        failed: a.failed + b.failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn files_of_a_rotated_set_are_one_run() {
        let mut runs = Runs::default();
        for file in 0..3 {
            runs.file(file);
            runs.begin(file, &samples::meta());
            runs.incident();
        }
        runs.end(&samples::summary(3, &[]));
        assert_eq!((runs.count(), runs.each()[0].incidents), (1, 3));
        assert!(runs.each()[0].has_more_files);
        assert_eq!(runs.totals().unfinished, 0);
    }

    #[test]
    fn recordings_that_follow_each_other_in_a_file_are_several_runs() {
        let mut runs = Runs::default();
        runs.file(0);
        for time_ns in 1..=3 {
            let mut meta = samples::meta();
            meta.time_ns = time_ns;
            runs.begin(0, &meta);
            assert_eq!(runs.incident() as u64, time_ns - 1);
            if time_ns < 3 {
                runs.end(&samples::summary(1, &[]));
            }
        }
        let totals = runs.totals();
        assert_eq!((runs.count(), totals.failures, totals.unfinished), (3, 3, 1));
        assert_eq!(totals.duration_ns, None);
    }

    #[test]
    fn endlessly_many_runs_take_bounded_memory_and_lose_no_count() {
        let mut runs = Runs::default();
        for time_ns in 0..3_000 {
            runs.file(0);
            let mut meta = samples::meta();
            meta.time_ns = time_ns;
            runs.begin(0, &meta);
            runs.incident();
            runs.end(&samples::summary(1, &[]));
        }
        assert_eq!((runs.each().len(), runs.count()), (RUNS, 3_000));
        assert_eq!(runs.totals().failures, 3_000);
    }

    #[test]
    fn losses_count_once_whether_lines_or_the_summary_have_them() {
        let mut runs = Runs::default();
        runs.file(0);
        runs.lost(&samples::lost());
        runs.lost(&samples::lost());
        assert_eq!(runs.totals().lost, 6);
        runs.end(&Summary { lost: 6, ..samples::summary(0, &[]) });
        assert_eq!(runs.totals().lost, 6);
        assert_eq!(runs.lost["records-ring-full"].count, 6);
    }
}
