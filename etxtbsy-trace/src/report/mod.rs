//! One report from any number of recordings.
//!
//! [`merge`] reads the recordings, one line at a time, into a [`Report`](model::Report): what they traced
//! ([`runs`]), and groups with their counts and a few examples ([`group`]). [`compare`] puts it next to that of
//! a baseline. Each format is a file here and a line in [`formats`].
//!
//! Here: what a report has, and how each format writes it. Not here: which incidents form a group
//! (`analysis::group`), how recorded lines are read (`output::recording`), options (`cli::report`).

#![allow(clippy::format_push_string, reason = "a report is written once")]

mod bounded;
pub mod compare;
pub mod contexts;
pub mod formats;
mod github;
pub mod group;
mod html;
mod junit;
mod markdown;
pub mod merge;
pub mod model;
mod perfetto;
pub mod places;
pub mod runs;
#[cfg(test)]
mod samples;
pub mod text;
mod words;
