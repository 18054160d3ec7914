//! Where in its code a thread was.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One frame of a stack: a function that had called the next inner one, or was inlined there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// The function, demangled; `[JIT]` for code that a runtime made and that no perf map names; `null` if no symbol
    /// names it.
    pub function: Option<String>,
    /// The source file, as the line table has it.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// The program or library, as the process has it mapped; `null` for code that a runtime made.
    pub module: Option<String>,
}
