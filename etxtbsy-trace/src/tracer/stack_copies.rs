//! Copies of user stacks: whose the programs make, and how they are read.

use std::mem::offset_of;

use aya::Ebpf;
use clap::ValueEnum;
use etxtbsy_trace_common::{STACK_PLACES, Stack, StacksOf, stack_at};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::numbers::Numbers;

/// Whose stacks are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StacksWanted {
    /// At failures, and at forks that inherit a write fd; at opens for writing in the traced tree, or by programs that
    /// had a failure
    #[default]
    Auto,
    /// At failures, at forks that inherit a write fd, and at all opens for writing
    Always,
    /// Nobody's
    Never,
}

impl StacksWanted {
    /// How many copies there is room for.
    pub(super) const fn places(self) -> u32 {
        match self {
            Self::Auto | Self::Always => STACK_PLACES,
            // A map has one element at the least.
            Self::Never => 1,
        }
    }

    /// The bits of [`StacksOf`] to begin with.
    pub(super) const fn bits(self) -> u64 {
        match self {
            // Without a tree, no process is of one.
            Self::Auto => StacksOf::Others as u64 | StacksOf::OpensOfTree as u64,
            Self::Always => StacksOf::Others as u64 | StacksOf::Opens as u64,
            Self::Never => 0,
        }
    }
}

/// The words of one copy.
const WORDS: u32 = (size_of::<Stack>() / size_of::<u64>()) as u32;

/// The map of the copies, as memory.
#[derive(Debug)]
pub(super) struct StackCopies(Numbers);

impl StackCopies {
    pub(super) fn of(ebpf: &Ebpf, wanted: StacksWanted) -> anyhow::Result<Self> {
        Ok(Self(Numbers::of(ebpf, "STACKS", wanted.places() * WORDS)?))
    }

    /// The copy of what a thread did at a time; `None` if there is none, or a younger one has its place.
    pub(super) fn get(&self, time_ns: u64, tid: u32) -> Option<Box<Stack>> {
        let first = stack_at(time_ns, tid) * WORDS;
        let word = |offset: usize| self.0.get(first + (offset / size_of::<u64>()) as u32);
        // Before and after: a program may write it meanwhile, and writes these first and last.
        let is_it = || {
            word(offset_of!(Stack, time_ns)) == time_ns
                && word(offset_of!(Stack, complete_ns)) == time_ns
        };
        if time_ns == 0 || !is_it() {
            return None;
        }
        let words: Vec<u64> = (first..first + WORDS).map(|at| self.0.get(at)).collect();
        let stack = Box::new(Stack::read_from_bytes(words.as_bytes()).ok()?);
        (is_it() && stack.tid == tid).then_some(stack)
    }
}
