//! What the user does: one table of keys ([`keys`]).

pub mod keys;
