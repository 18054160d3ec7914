//! The maps of numbers that both sides read and write while tracing, as memory.
//!
//! Not by bpf(2): while a process is in that call, the kernel runs no program on a system call's
//! tracepoint on its processor, not even for a task that preempts it there. What counts must not
//! make others be missed.

use std::{
    num::NonZero,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context as _, bail};
use aya::{Ebpf, maps::Map};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// An array map of `u64` with the flag BPF_F_MMAPABLE.
#[derive(Debug)]
pub(super) struct Numbers {
    start: NonNull<AtomicU64>,
    bytes: NonZero<usize>,
    count: u32,
}

// SAFETY: the memory is the kernel's, stays where it is, and holds atomics alone.
unsafe impl Send for Numbers {}

impl Numbers {
    /// The map of that name, which has `count` numbers.
    pub(super) fn of(ebpf: &Ebpf, name: &str, count: u32) -> anyhow::Result<Self> {
        let Some(Map::Array(map)) = ebpf.map(name) else {
            bail!("the eBPF object has no array {name}");
        };
        let bytes = NonZero::new(count as usize * size_of::<u64>()).context("an empty map")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, of a map that is at least as large: the programs and we have the
        // number of its elements from one constant.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map.fd(), 0) }
            .with_context(|| format!("cannot map the memory of {name}"))?;
        Ok(Self { start: start.cast(), bytes, count })
    }

    /// The number at an index; 0 where there is none.
    pub(super) fn get(&self, index: u32) -> u64 {
        self.at(index).map_or(0, |number| number.load(Relaxed))
    }

    /// Changes the number at an index.
    pub(super) fn set(&self, index: u32, value: u64) {
        if let Some(number) = self.at(index) {
            number.store(value, Relaxed);
        }
    }

    fn at(&self, index: u32) -> Option<&AtomicU64> {
        // SAFETY: within the mapping, which lives as long as this; page-aligned, as the kernel's are.
        (index < self.count).then(|| unsafe { self.start.add(index as usize).as_ref() })
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing refers to it any more. It can only fail for other arguments.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}
