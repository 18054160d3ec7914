//! The view of incidents on a terminal.
//!
//! Here: keys ([`input`]), what came in and what the user did with it ([`model`]), drawing ([`view`]): these do no I/O.
//! What brings lines and the traced command's output to the view is [`feed`] and [`command_output`]; the terminal
//! is [`terminal`]'s; [`run`] shows a session. Not here: the lanes of the timeline (`timeline`), groups
//! (`analysis`), words that text has too (`output`).

pub mod command_output;
pub mod feed;
pub mod input;
pub mod model;
pub mod run;
pub mod terminal;
pub mod view;
