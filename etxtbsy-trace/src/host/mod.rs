//! What the machine says outside of tracing: /proc, users and privileges, files, our own streams.
//!
//! Here: reading and changing what any process could. Not here: eBPF (`tracer`), and what the facts mean
//! for a failure (`analysis`).

pub mod binfmt_misc;
pub mod cgroups;
pub mod clock;
pub mod context;
pub mod fs_view;
pub mod identity;
pub mod login;
pub mod loop_device;
pub mod machine;
pub mod memory;
pub mod opening;
pub mod owned_output;
pub mod pidfd;
pub mod pids;
pub mod planted;
pub mod privileges;
pub mod proc_file;
pub mod process;
pub mod process_tree;
pub mod runtime;
pub mod stdio;
pub mod sudo;
pub mod user;
