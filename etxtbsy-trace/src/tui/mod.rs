//! The view of incidents on a terminal: what came in ([`model`]), what the user did with it
//! ([`state`]), the keys ([`input`]), what is drawn ([`view`]), and the terminal itself
//! ([`terminal`]). Only the last one does any I/O.

pub mod input;
pub mod model;
pub mod state;
pub mod terminal;
pub mod view;
