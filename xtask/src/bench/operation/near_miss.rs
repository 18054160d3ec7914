//! An exec of a file that was just written, while another child ran: a near miss if that child had inherited
//! the write fd.

use std::{fs::File, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::Pid,
};

use super::{
    process::{self, exec, exit, wait},
    scratch::Scratch,
    timing::{Calls, Prepared},
};

/// A script, because a copy of a program may need its name (busybox).
const SCRIPT: &str = "#!/bin/true\n";
/// Longer than a near miss looks back. The kernel may give the new file the inode of a removed one, which
/// another measurement used.
const FORGOTTEN: Duration = Duration::from_millis(1100);

#[derive(Clone, Copy, PartialEq)]
pub(super) enum NearMiss {
    Yes,
    /// The same calls, but the other child is forked before the file is opened.
    No,
}

impl NearMiss {
    pub(super) fn prepare(self, dir: &Path) -> Result<Prepared> {
        let script = Scratch::with(dir, SCRIPT)?;
        thread::sleep(FORGOTTEN);
        let once = move || {
            let other = if self == Self::Yes {
                let file = script.open()?;
                end_of_other(Some(file))?
            } else {
                let other = end_of_other(None)?;
                drop(script.open()?);
                other
            };
            // SAFETY: the child only makes system calls.
            let child = unsafe {
                process::fork(|| {
                    exec(&script.path);
                })
            };
            wait(child?)?;
            wait(other)
        };
        Ok(Prepared { once: Box::new(once), calls: Calls::InBatches(1) })
    }
}

/// Forks a child that ends at once, waits for its end, and then closes the file, which the child had too.
///
/// The child is not reaped: a child that was reaped before the exec's process was forked could not have made
/// the exec fail.
fn end_of_other(file: Option<File>) -> Result<i32> {
    // SAFETY: the child only makes a system call.
    let other = unsafe { process::fork(|| exit(0)) }?;
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(other)), flags).context("cannot wait for a child")?;
    drop(file);
    Ok(other)
}
