//! What several probes read, read once.

use std::{
    cell::{Cell, OnceCell},
    collections::BTreeSet,
};

use crate::tracer::{
    layout::{Kernel, running_kernel},
    tracefs::{self, Unreachable, with_tracefs},
};

/// Caches what was read of the machine.
#[derive(Default)]
pub(super) struct Machine {
    btf: OnceCell<Result<Kernel, String>>,
    syscalls: OnceCell<Result<anyhow::Result<BTreeSet<String>>, Unreachable>>,
    /// Whether no fact was missing so far.
    pub(super) nothing_missing: Cell<bool>,
}

impl Machine {
    /// The kernel's BTF, or why it cannot be read.
    pub(super) fn btf(&self) -> Result<&Kernel, &str> {
        let read = || running_kernel().map_err(|error| format!("{error:#}"));
        self.btf.get_or_init(read).as_ref().map_err(String::as_str)
    }

    /// The tracepoints of system calls.
    pub(super) fn syscalls(&self) -> Result<&anyhow::Result<BTreeSet<String>>, &Unreachable> {
        self.syscalls.get_or_init(|| with_tracefs(tracefs::syscalls)).as_ref()
    }
}
