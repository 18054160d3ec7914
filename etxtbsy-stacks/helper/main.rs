//! The helper of the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    etxtbsy_stacks::helper::main()
}
