//! Single system calls, and an open with its close.

use std::{ffi::CStr, path::Path};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::{
    scratch::Scratch,
    timing::{Calls, Prepared},
};

/// Repetitions between two readings of the clock, which counts microseconds.
const BATCH: u32 = 2000;

#[derive(Clone, Copy)]
pub(super) enum SystemCall {
    NotTraced,
    OpenForReading,
    OpenForWriting,
}

impl SystemCall {
    pub(super) fn prepare(self, dir: &Path) -> Result<Prepared> {
        let file = Scratch::empty(dir)?;
        let once: Box<dyn FnMut() -> Result<()>> = match self {
            Self::NotTraced => Box::new(|| {
                // SAFETY: getppid(2) takes no arguments.
                unsafe { libc::syscall(libc::SYS_getppid) };
                Ok(())
            }),
            Self::OpenForReading => Box::new(move || open_and_close(&file.path, libc::O_RDONLY)),
            Self::OpenForWriting => Box::new(move || open_and_close(&file.path, libc::O_WRONLY)),
        };
        Ok(Prepared { once, calls: Calls::InBatches(BATCH) })
    }
}

fn open_and_close(path: &CStr, flags: i32) -> Result<()> {
    // SAFETY: the path is a C string, and no other code has the new fd.
    let closed = unsafe { libc::close(libc::open(path.as_ptr(), flags)) };
    Errno::result(closed).context("cannot open or close")?;
    Ok(())
}
