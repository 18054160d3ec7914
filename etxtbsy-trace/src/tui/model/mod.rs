//! What came in ([`incidents`], [`live`]), and what the user did with it ([`state`]). What the user wants done
//! outside is an [`effect`]. No I/O, nothing drawn.

pub mod effect;
pub mod export;
pub mod filter;
pub mod incidents;
pub mod list;
pub mod live;
mod prompt;
pub mod rate;
pub mod sort;
pub mod state;
pub mod statistics;
