//! Asks the terminal to report the mouse.

use crossterm::Command;
use std::fmt;

/// The modes: clicks, motion with a button pressed, and the encoding for any number of columns. Not
/// motion without a button, which would wake the view all the time.
const MODES: [&str; 3] = ["1000", "1002", "1006"];

/// Starts or stops the reports.
pub(super) struct Report(pub(super) bool);

impl Command for Report {
    fn write_ansi(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let end = if self.0 { 'h' } else { 'l' };
        MODES.iter().try_for_each(|mode| write!(f, "\x1b[?{mode}{end}"))
    }
}
