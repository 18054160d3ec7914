//! The eBPF programs of etxtbsy-trace.
//!
//! They keep, per inode, who holds it open for writing ([`holds`]), at a few map operations per open for
//! writing and none at all for other system calls. They report nothing until an exec fails ([`failure`]).
//! They use only tracepoints, so they also work on kernels without kprobes and under lockdown=integrity.
//! Field offsets come from the running kernel's BTF ([`kernel`]).
//!
//! The modules import one way, each only from those below it:
//!
//! 1. [`hooks`], [`iters`], [`queries`]: what the kernel or user space calls
//! 2. [`failure`]: what a failed call makes the programs do
//! 3. [`holds`]: who holds files open for writing, and who runs which
//! 4. [`emit`]: records for user space
//! 5. [`stacks`]: copies of user stacks
//! 6. [`tree`]: which processes are of interest
//! 7. [`bounded_loop`]: loops that the verifier accepts
//! 8. [`kernel`]: the running kernel's structures
//! 9. [`maps`]: the maps; [`kernel`] reads one of them, which has what calibration has shown
//!
//! Functions that are `extern "C"` are global: the verifier checks each once, and not again for every path
//! that leads to it. They take and return only numbers, because kernels before 5.13 accept no pointers there.
#![no_std]
#![no_main]
// The only way to an atomic addition on this target.
#![feature(asm_experimental_arch)]

mod bounded_loop;
mod emit;
mod failure;
mod holds;
mod hooks;
mod iters;
mod kernel;
mod maps;
mod queries;
mod stacks;
mod tree;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The verifier grants bpf_probe_read_kernel to GPL-compatible programs alone.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
