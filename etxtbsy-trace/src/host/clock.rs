//! Clocks.

use nix::time::{ClockId, clock_gettime};

/// A clock, in nanoseconds.
#[must_use]
pub fn now_ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
    })
}

/// How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, in nanoseconds: another number whenever the
/// former is set, or the machine was suspended.
#[must_use]
pub fn realtime_offset_ns() -> i128 {
    i128::from(now_ns(ClockId::CLOCK_REALTIME)) - i128::from(now_ns(ClockId::CLOCK_MONOTONIC))
}
