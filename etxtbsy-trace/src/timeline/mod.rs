//! What each process did with the busy file, and when, as plain values: for the view and for reports.
//!
//! Here: which stretches and moments there are, and which part of the time is looked at. Not here: drawing.

pub mod lanes;
pub mod zoom;
