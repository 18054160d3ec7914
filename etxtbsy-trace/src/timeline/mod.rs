//! What each process did with the busy file, and when, as plain values for the view.
//!
//! Here: the bars and marks of each process, and the visible part of the time. Not here: drawing.

pub mod lanes;
pub mod zoom;
