//! The view of incidents on a terminal: what came in ([`model`], [`live`]), what the user did with
//! it ([`state`]), the keys ([`input`]), what is drawn ([`view`]): none of them does any I/O. The
//! terminal itself is [`terminal`]'s; it is fed by way of [`feed`], the traced command's output by
//! [`command_output`]; [`held`] has what is to be said when the view has gone.

pub mod command_output;
pub mod feed;
pub mod held;
pub mod input;
pub mod live;
pub mod model;
pub mod state;
pub mod terminal;
pub mod view;
