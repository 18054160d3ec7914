//! User input: one table of keys ([`keys`]).

pub mod keys;
