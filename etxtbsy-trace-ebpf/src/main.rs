//! The eBPF programs of etxtbsy-trace.
//!
//! They keep, per inode, who holds it open for writing ([`hold`]), at a few map operations per
//! open for writing and none at all for other system calls, and tell user space nothing until an
//! exec fails ([`fail`]). Every program stands on a tracepoint, for those work on kernels that
//! are locked down or lack kprobes. Field offsets come from the running kernel's BTF ([`kernel`]).
#![no_std]
#![no_main]
// The only way to an atomic addition on this target.
#![feature(asm_experimental_arch)]

mod ask;
mod calls;
mod close;
mod compat;
mod copied;
mod dup;
mod exec;
mod exit;
mod fail;
mod fork;
mod hold;
mod keeper;
mod kernel;
mod linger;
mod maps;
mod open;
mod pids;
mod received;
mod refused;
mod resolve;
mod ring;
mod run;
mod runners;
mod search;
mod seed;
mod tell;
mod text;
mod tree;
mod unshare;
mod victim;
mod walk;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The verifier grants bpf_probe_read_kernel to GPL-compatible programs alone.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
