//! Writes the lines as JSON for programs ([`json`]) and as text for people ([`text`]), and reads them
//! again ([`recording`]).
//!
//! Here: the output formats, what they share, and the queue to a slow reader. Not here: which
//! incidents form a group (`analysis::group`), how a string is quoted (`text`), the view (`tui`).

pub mod bounds;
pub mod check;
mod compression;
mod fold;
pub mod formats;
pub(crate) mod group;
pub(crate) mod incident;
pub mod json;
pub mod look;
pub(crate) mod near_miss;
pub mod queue;
pub mod recording;
pub mod recording_file;
mod rotation;
#[cfg(test)]
pub(crate) mod samples;
pub mod schema;
mod stack;
mod summary;
pub mod text;

use crate::event::{Incident, Line};
use std::io;

/// Receives the lines, one after the other, in the order of [`Line`]'s variants.
pub trait Output: Send {
    /// Writes one line. When this returns, the line has left the process.
    fn line(&mut self, line: &Line) -> io::Result<()>;

    /// A call has just failed. `incident` returns what is known so far, with id 0. The line follows
    /// when the holders have released the file, or after a second; most outputs wait for it.
    fn pending(&mut self, _incident: &dyn Fn() -> Incident) {}

    /// The command could not be started; an error message follows the last line.
    fn command_failed(&mut self) {}

    /// No more lines come, with or without a summary.
    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Another output has failed; `message` says which one and why.
    fn failed(&mut self, _message: &str) {}

    /// Whether the line that failed with this error can be written later. Nothing of it remains then.
    fn can_retry(&self, _error: &io::Error) -> bool {
        false
    }

    /// Whether [`Output::reopen`] has an effect.
    fn can_reopen(&self) -> bool {
        false
    }

    /// Opens the file by its name again, which another one may have by now.
    fn reopen(&mut self) {}

    /// A message about this output for the user, once.
    fn take_message(&mut self) -> Option<String> {
        None
    }
}
