//! The live view on a terminal.
//!
//! Without I/O: keys ([`input`]), received lines and user interface state ([`model`]), drawing
//! ([`view`]). With I/O: [`feed`] and [`command_output`] pass lines and the command's output to the
//! view, [`terminal`] draws, [`run`] shows a session. Not here: the lanes of the timeline (`timeline`),
//! groups (`analysis`), the text output (`output`).

pub mod command_output;
pub mod feed;
pub mod input;
pub mod model;
pub mod run;
pub mod terminal;
pub mod view;
