//! How long each call waits: random delays up to a limit, from a seed.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// The longest delay that can be asked for.
pub const LONGEST: Duration = Duration::from_secs(1);

/// A seed that differs between runs, short enough to be typed.
#[must_use]
pub fn random_seed() -> u64 {
    // The standard library seeds each RandomState from the kernel's random numbers.
    RandomState::new().hash_one(()) & u64::from(u32::MAX)
}

/// Delays in the order in which calls come in.
#[derive(Clone, Debug)]
pub(super) struct Delays {
    state: u64,
    max_ns: u64,
}

impl Delays {
    /// Delays from nothing to `max`, which the seed determines.
    pub(super) fn new(max: Duration, seed: u64) -> Self {
        let max_ns = u64::try_from(max.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
        Self { state: seed, max_ns }
    }

    /// The delay of the next call.
    pub(super) fn next_delay(&mut self) -> Duration {
        let scaled = u128::from(self.random()) * (u128::from(self.max_ns) + 1);
        Duration::from_nanos((scaled >> 64) as u64)
    }

    /// Yes or no, equally likely.
    pub(super) fn next_choice(&mut self) -> bool {
        self.random() >> 63 != 0
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(max: Duration, seed: u64) -> Vec<Duration> {
        let mut delays = Delays::new(max, seed);
        (0..1000).map(|_| delays.next_delay()).collect()
    }

    #[test]
    fn a_seed_determines_the_delays() {
        let max = Duration::from_millis(5);
        assert_eq!(first(max, 1234), first(max, 1234));
        assert_ne!(first(max, 1234), first(max, 1235));
        // Fixed, so that a seed means the same in later versions.
        assert_eq!(first(max, 1234)[..2], [3_653_333, 2_964_449].map(Duration::from_nanos));
    }

    #[test]
    fn delays_are_spread_from_nothing_to_the_limit() {
        let max = Duration::from_millis(5);
        let all = first(max, 0);
        assert!(all.iter().all(|delay| *delay <= max));
        assert!(
            all.iter().min().unwrap() < &(max / 20) && all.iter().max().unwrap() > &(max / 20 * 19)
        );
        let mean = all.iter().sum::<Duration>() / 1000;
        assert!((max / 2).abs_diff(mean) < max / 20, "{mean:?}");
    }

    #[test]
    fn a_choice_is_yes_half_of_the_time() {
        let mut delays = Delays::new(Duration::ZERO, 0);
        let yes = (0..1000).filter(|_| delays.next_choice()).count();
        assert!((450..550).contains(&yes), "{yes}");
    }

    #[test]
    fn delays_have_an_upper_bound() {
        assert!(first(Duration::MAX, 7).iter().all(|delay| *delay <= LONGEST));
        assert!(first(Duration::ZERO, 7).iter().all(Duration::is_zero));
    }

    #[test]
    fn random_seeds_differ() {
        assert_ne!([random_seed(), random_seed()], [random_seed(), random_seed()]);
    }
}
