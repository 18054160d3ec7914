//! The command line.

use std::process::ExitCode;

use etxtbsy_trace::{cli, host::memory::Memory};

#[global_allocator]
static MEMORY: Memory = Memory;

fn main() -> ExitCode {
    cli::main()
}
