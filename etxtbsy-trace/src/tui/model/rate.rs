//! How many incidents there were over time, in memory that does not grow with the time.

/// How many stretches of time are counted apart; while they are in use, at least half of them.
const BUCKETS: usize = 64;
/// How long a stretch is at first, in nanoseconds; it doubles when there are too few.
const SHORTEST: u64 = 1_000_000;
/// Of how many parts of one incident a mean is made.
const SCALE: u64 = 64;

/// The time that all groups are counted over: stretches of the same length from a start.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    start_ns: u64,
    width_ns: u64,
}

impl Axis {
    /// From a moment of CLOCK_MONOTONIC on.
    #[must_use]
    pub fn new(start_ns: u64) -> Self {
        Self { start_ns, width_ns: SHORTEST }
    }

    /// The stretch of a moment, the first for those before the start; and by how many doublings
    /// the stretches had to grow for it.
    pub fn bucket(&mut self, time_ns: u64) -> (usize, u32) {
        let after = time_ns.saturating_sub(self.start_ns);
        let mut doublings = 0;
        while after / self.width_ns >= BUCKETS as u64 {
            self.width_ns *= 2;
            doublings += 1;
        }
        ((after / self.width_ns) as usize, doublings)
    }

    /// How many stretches there are until a moment.
    fn used(&self, until_ns: u64) -> usize {
        let after = until_ns.saturating_sub(self.start_ns);
        ((after / self.width_ns) as usize + 1).min(BUCKETS)
    }
}

/// How many of one group there were in each stretch.
#[derive(Clone, Debug)]
pub struct Rate([u32; BUCKETS]);

impl Default for Rate {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Rate {
    /// Counts one in a stretch.
    pub fn add(&mut self, bucket: usize) {
        self.0[bucket] = self.0[bucket].saturating_add(1);
    }

    /// Makes one stretch of each two.
    pub fn double(&mut self) {
        self.0 = std::array::from_fn(|at| {
            let pair = self.0.get(at * 2..at * 2 + 2).unwrap_or_default();
            pair.iter().fold(0, |sum: u32, count| sum.saturating_add(*count))
        });
    }

    /// The time until a moment in `columns` parts: in each, of 0 to `most`, how frequent they were
    /// compared with the part where they were most frequent. Above 0 where there was one.
    #[must_use]
    pub fn bar(&self, axis: Axis, until_ns: u64, columns: usize, most: usize) -> Vec<usize> {
        let used = axis.used(until_ns);
        // Parts can differ by a stretch in length.
        let means: Vec<u64> = (0..columns)
            .map(|column| {
                let from = column * used / columns;
                let to = ((column + 1) * used / columns).max(from + 1);
                let counts = &self.0[from..to];
                counts.iter().map(|count| u64::from(*count) * SCALE).sum::<u64>()
                    / counts.len() as u64
            })
            .collect();
        let highest = means.iter().copied().max().unwrap_or(0).max(1);
        let level = |mean: &u64| {
            let level = (mean * most as u64 + highest / 2) / highest;
            level.max(u64::from(*mean > 0)) as usize
        };
        means.iter().map(level).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_time_goes_on() {
        let mut axis = Axis::new(1_000);
        let mut rate = Rate::default();
        for after in [0, 500_000, 63_000_000, 64_000_000, 10_000_000_000, u64::MAX - 1_000] {
            let (bucket, doublings) = axis.bucket(1_000 + after);
            (0..doublings).for_each(|_| rate.double());
            rate.add(bucket);
        }
        assert_eq!(rate.0.iter().sum::<u32>(), 6);
        assert_eq!(axis.bucket(5), (0, 0), "before the start");
    }

    #[test]
    fn a_bar_shows_when_there_were_many() {
        let mut axis = Axis::new(0);
        let mut rate = Rate::default();
        for (time_ns, count) in [(0, 8), (20_000_000, 1), (63_000_000, 16)] {
            let (bucket, _) = axis.bucket(time_ns);
            (0..count).for_each(|_| rate.add(bucket));
        }
        assert_eq!(rate.bar(axis, 63_000_000, 8, 8), [4, 0, 1, 0, 0, 0, 0, 8]);
        assert_eq!(rate.bar(axis, 0, 8, 8), [8; 8], "one stretch fills the bar");
        assert_eq!(rate.bar(axis, u64::MAX, 0, 8), Vec::<usize>::new());
    }
}
