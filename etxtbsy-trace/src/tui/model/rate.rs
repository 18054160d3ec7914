//! The number of incidents over time, in constant memory.

/// The number of time buckets. At least half of them are used, once there are enough.
const BUCKETS: usize = 64;
/// The first length of a bucket, in nanoseconds; it doubles when the buckets are used up.
const SHORTEST: u64 = 1_000_000;
/// The factor of the fixed-point means.
const SCALE: u64 = 64;

/// The time axis of all groups: buckets of equal length from a start.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    start_ns: u64,
    width_ns: u64,
}

impl Axis {
    /// An axis that starts at a time of CLOCK_MONOTONIC.
    #[must_use]
    pub fn new(start_ns: u64) -> Self {
        Self { start_ns, width_ns: SHORTEST }
    }

    /// The bucket of a time (the first for times before the start), and how often the length of the
    /// buckets was doubled for it.
    pub fn bucket(&mut self, time_ns: u64) -> (usize, u32) {
        let after = time_ns.saturating_sub(self.start_ns);
        let mut doublings = 0;
        while after / self.width_ns >= BUCKETS as u64 {
            self.width_ns *= 2;
            doublings += 1;
        }
        ((after / self.width_ns) as usize, doublings)
    }

    /// The number of buckets until a time.
    fn used(&self, until_ns: u64) -> usize {
        let after = until_ns.saturating_sub(self.start_ns);
        ((after / self.width_ns) as usize + 1).min(BUCKETS)
    }
}

/// The incidents of one group in each bucket.
#[derive(Clone, Debug)]
pub struct Rate([u32; BUCKETS]);

impl Default for Rate {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Rate {
    /// Counts an incident in a bucket.
    pub fn add(&mut self, bucket: usize) {
        self.0[bucket] = self.0[bucket].saturating_add(1);
    }

    /// Merges each pair of buckets.
    pub fn double(&mut self) {
        self.0 = std::array::from_fn(|at| {
            let pair = self.0.get(at * 2..at * 2 + 2).unwrap_or_default();
            pair.iter().fold(0, |sum: u32, count| sum.saturating_add(*count))
        });
    }

    /// The rate until a time in `columns` levels of 0 to `most`, relative to the highest rate. A level
    /// is above 0 if there was an incident.
    #[must_use]
    pub fn bar(&self, axis: Axis, until_ns: u64, columns: usize, most: usize) -> Vec<usize> {
        let used = axis.used(until_ns);
        // Columns can differ by one bucket in length, so the mean is used.
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
    fn doubling_loses_no_count() {
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
    fn a_bar_is_high_where_there_were_many() {
        let mut axis = Axis::new(0);
        let mut rate = Rate::default();
        for (time_ns, count) in [(0, 8), (20_000_000, 1), (63_000_000, 16)] {
            let (bucket, _) = axis.bucket(time_ns);
            (0..count).for_each(|_| rate.add(bucket));
        }
        assert_eq!(rate.bar(axis, 63_000_000, 8, 8), [4, 0, 1, 0, 0, 0, 0, 8]);
        assert_eq!(rate.bar(axis, 0, 8, 8), [8; 8], "one bucket fills the bar");
        assert_eq!(rate.bar(axis, u64::MAX, 0, 8), Vec::<usize>::new());
    }
}
