//! What happens when there is no more memory, as with too small a `ulimit -v`.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, Ordering},
};

/// The exit status of a failure to trace, as `env` and `timeout` have it: no status of a command's.
pub const FAILED_TO_TRACE: u8 = 125;
const WORDS: &[u8] = b"etxtbsy-trace: out of memory; raise the limit (ulimit -v), or free some\n";

/// The system's allocator. Where that has nothing, this program says so in one line and ends; the
/// standard library would abort it, with a core dump.
pub struct Memory;

// SAFETY: all is the system allocator's; that this ends the process instead of returning null is allowed.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that it wants.
        given(unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.realloc(memory, layout, size) })
    }
}

/// Whether a thread says [`WORDS`]: several can find no memory at once.
static SAID: AtomicBool = AtomicBool::new(false);

/// The memory, if there is any.
fn given(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        // SAFETY: write(2) of a static text, and the end, without anything that allocates.
        unsafe {
            while SAID.swap(true, Ordering::Relaxed) {
                // Until the thread that says it ends the process.
                libc::pause();
            }
            libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
            libc::_exit(FAILED_TO_TRACE.into());
        }
    }
    memory
}
