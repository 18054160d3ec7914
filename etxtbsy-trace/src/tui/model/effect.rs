//! What a key needs that takes I/O.

use super::export::Scope;

/// An action with I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write incidents to a new file.
    Export(Scope),
    /// Copy a text to the clipboard.
    Copy {
        /// What the text is, for the notice.
        what: String,
        /// The text.
        text: String,
    },
}
