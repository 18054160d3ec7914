//! Text that is kept until the view has closed.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The most bytes that are kept; the rest is discarded.
const BYTES: usize = 1 << 20;

/// A writer whose text is kept; its clones share the text.
#[derive(Clone, Default)]
pub struct DeferredText(Arc<Mutex<Vec<u8>>>);

impl DeferredText {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the kept text.
    pub fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        let bytes = std::mem::take(&mut *self.bytes());
        to.write_all(&bytes)?;
        to.flush()
    }
}

impl Write for DeferredText {
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
