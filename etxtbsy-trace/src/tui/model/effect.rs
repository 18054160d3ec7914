//! What the state wants done outside of it.

use super::export::Scope;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write incidents to a new file.
    Export(Scope),
    /// Put a text into the clipboard.
    Copy {
        /// What it is.
        what: String,
        /// The text.
        text: String,
    },
}
