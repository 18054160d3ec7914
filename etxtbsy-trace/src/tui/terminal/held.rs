//! Text that waits until the view has given the terminal back.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So much is kept; what comes after is left out.
const BYTES: usize = 1 << 20;

/// A place to write to, shared with its clones.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<Vec<u8>>>);

impl Held {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was held.
    pub fn let_go(&self, mut to: impl Write) -> io::Result<()> {
        let bytes = std::mem::take(&mut *self.bytes());
        to.write_all(&bytes)?;
        to.flush()
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.bytes();
        if held.len() + bytes.len() <= BYTES {
            held.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
