//! From records to an answer: all that is known of a failure ([`case`]), failures that are pending
//! ([`ledger`]), who held the file ([`attribution`]) or ran it ([`running`]), the incident ([`incident`]), its
//! conclusion ([`verdict`]), and which incidents have one cause ([`group`]).
//!
//! Here: pure functions of plain values, tested without a kernel. Not here: reading /proc or maps, waiting,
//! writing.

pub mod attribution;
pub mod case;
pub mod frames;
pub mod group;
pub mod incident;
pub mod ledger;
pub mod names;
pub mod near_miss;
pub mod programs;
pub mod rate;
pub mod running;
pub mod verdict;
pub mod wait;
pub mod ways;
