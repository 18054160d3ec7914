//! The lines of a hunt, collected for the report at its end.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{event::Line, output::Output, report::model::Report};

/// An output that collects a report. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Collected {
    report: Arc<Mutex<Report>>,
}

impl Collected {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the report.
    pub(super) fn take(&self) -> Report {
        std::mem::take(&mut *self.report())
    }
}

impl Output for Collected {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut report = self.report();
        if report.files.is_empty() {
            report.file("this hunt");
        }
        report.add(line);
        Ok(())
    }
}
