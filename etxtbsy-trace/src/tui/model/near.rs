//! Near misses, which the list shows as incidents.

/// What a near miss has, and an incident has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// From the last release to the exec, in nanoseconds.
    pub margin_ns: u64,
    /// How many near misses it stands for, itself included.
    pub count: u64,
}
