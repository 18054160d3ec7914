//! Names the functions and source lines of copied user stacks.
//!
//! The eBPF programs copy the top of a thread's stack when it opens a file, forks, or fails to execute one. A
//! [`Resolver`] turns such a copy into frames. What cannot be resolved is left out and counted, never guessed.
//!
//! A worker thread reads the mappings of the process and opens the mapped files at once, because the process may end
//! soon. A helper process without privileges reads these files, which are strangers' (`confine`). It gets their fds, the
//! registers and the copy through a socket. Where a hostile or truncated file kills it or makes it slow, that copy is
//! answered with `None`, and the next one gets a new helper.

mod confine;
mod demangle;
mod elf;
pub mod helper;
mod mappings;
mod modules;
mod open;
mod perf_map;
mod prepare;
mod process;
pub mod resolve;
mod resolver;
mod symbols;
mod unwind;
mod wire;
mod worker;

pub use self::resolver::Resolver;

use etxtbsy_trace_common::Stack;
use etxtbsy_trace_event::Frame;

/// Names a copy: [`Stack::time_ns`] and [`Stack::tid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// [`Stack::time_ns`].
    pub time_ns: u64,
    /// [`Stack::tid`].
    pub tid: u32,
}

impl Key {
    /// The key of a copy.
    #[must_use]
    pub fn of(stack: &Stack) -> Self {
        Self { time_ns: stack.time_ns, tid: stack.tid }
    }
}

/// A copy, and the processes in whose mappings its code is.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Names it.
    pub key: Key,
    /// The copy.
    pub stack: Box<Stack>,
    /// The thread group and others that share its memory or inherited it, as /proc here numbers them. The first is used
    /// that can be read and has the code and the stack mapped.
    pub pids: Vec<u32>,
}

/// The frames of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// How many frames are left out because nothing is known about them.
    pub unknown: u32,
}
