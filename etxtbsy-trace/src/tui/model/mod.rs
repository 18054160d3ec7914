//! What the view received ([`incidents`], [`live`]), and the state of the user interface ([`state`]). A
//! key that needs I/O gives an [`effect`]. No I/O and no drawing here.

pub mod effect;
pub mod export;
pub mod filter;
pub mod incidents;
pub mod list;
pub mod live;
mod mouse;
pub mod near;
mod prompt;
pub mod rate;
pub mod search;
pub mod sort;
pub mod state;
pub mod statistics;
pub mod words;
