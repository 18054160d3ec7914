//! Where the lines go: as JSON for programs ([`json`]), as text for people ([`text`]); and how they are
//! read again ([`recording`]).
//!
//! Here: an output format each, what formats share, and the queue to a slow reader. Not here: which
//! incidents belong together (`analysis::group`), how a string is quoted (`text`), the view (`tui`).

pub mod bounds;
pub mod check;
pub mod formats;
mod incident;
pub mod json;
mod look;
pub mod queue;
pub mod recording;
#[cfg(test)]
pub(crate) mod samples;
pub mod schema;
mod summary;
pub mod text;

use crate::event::{Incident, Line};
use std::io;

/// Something that takes the lines, one after the other, in the order of [`Line`]'s variants.
pub trait Output: Send {
    /// Takes one line; what it makes of it has left the program when this returns.
    fn line(&mut self, line: &Line) -> io::Result<()>;

    /// A call has just failed; `incident` makes what is known of it so far, with an id of 0. Its
    /// line comes when its holders have dropped the file, or after a second. Most outputs wait for that.
    fn pending(&mut self, _incident: &dyn Fn() -> Incident) {}

    /// The command to trace could not be started; an error says so after the last line.
    fn command_failed(&mut self) {}

    /// Another output has failed; the words say which, and why.
    fn failed(&mut self, _words: &str) {}
}
