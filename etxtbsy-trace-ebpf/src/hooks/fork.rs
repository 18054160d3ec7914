//! A process forks.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::holds::fork;

/// `sched:sched_process_fork`, raw.
///
/// In `kernel_clone`, when the child is complete and has not run yet. The program reads the child's own
/// table, not what is noted of its parent's: `copy_files` was long ago, and the parent may have closed the
/// file since. That also proves, after a failure, that a child held the file while the fork was still
/// making it.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn forked(ctx: RawTracePointContext) -> i32 {
    fork::note(ctx.arg(0), ctx.arg(1));
    0
}
