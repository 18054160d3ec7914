//! The view of incidents on a terminal: what came in ([`model`], [`live`]), what the user did with
//! it ([`state`]: the list, the filter, prompts), the keys ([`input`]), what is drawn ([`view`]): none
//! of them does any I/O; what they want done is an [`effect`]. The terminal itself is [`terminal`]'s;
//! it is fed by way of [`feed`], the traced command's output by [`command_output`]; [`held`] has what
//! is to be said when the view has gone.

pub mod command_output;
pub mod effect;
pub mod export;
pub mod feed;
pub mod filter;
pub mod held;
pub mod input;
pub mod list;
pub mod live;
pub mod model;
mod prompt;
pub mod rate;
pub mod run;
pub mod sort;
pub mod state;
pub mod statistics;
pub mod terminal;
pub mod view;
mod writer;
