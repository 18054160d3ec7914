//! One line on a terminal that shows how far the hunt is.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use crossterm::{
    cursor::MoveToColumn,
    queue,
    terminal::{Clear, ClearType, size},
};
use tokio::time::Instant;

use crate::{
    event::{Hunt, Run},
    output::incident::{count, run_name},
};

/// The columns of a terminal that does not say how many it has.
const COLUMNS: u16 = 80;

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
    began: Instant,
    deadline: Option<Instant>,
    found: Hunt,
}

impl Progress {
    /// Of a hunt that begins now. Without a terminal, nothing is shown.
    pub(super) fn new(is_shown: bool, deadline: Option<Instant>) -> Self {
        Self { is_shown, began: Instant::now(), deadline, found: Hunt::default() }
    }

    /// Takes what the runs that are over came to, if it is shown.
    pub(super) fn take(&mut self, found: impl FnOnce() -> Hunt) {
        if self.is_shown {
            self.found = found();
        }
    }

    /// Shows the line. An error is no reason to end the hunt.
    pub(super) fn show(&self, run: Run) {
        if self.is_shown {
            let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let text = line(run, &self.found, self.began.elapsed(), left);
            let columns = size().map_or(COLUMNS, |(columns, _)| columns);
            // Not in the last column, from where some terminals go on to the next line.
            let text: String = text.chars().take(usize::from(columns).saturating_sub(1)).collect();
            let _ = write(&text);
        }
    }

    /// Removes the line.
    pub(super) fn clear(&self) {
        if self.is_shown {
            let _ = write("");
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = Vec::new();
    queue!(out, MoveToColumn(0), Clear(ClearType::UntilNewLine))?;
    out.extend(text.as_bytes());
    let mut stderr = io::stderr().lock();
    stderr.write_all(&out)?;
    stderr.flush()
}

fn line(run: Run, found: &Hunt, elapsed: Duration, left: Option<Duration>) -> String {
    let minutes = |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
    let time = match left {
        Some(left) => format!("{} left", minutes(left)),
        None => minutes(elapsed),
    };
    [
        format!("run {}", run_name(run)),
        count(found.sum(|runs| runs.execs.of_written_files), "exec", "execs") + " of written files",
        count(found.sum(|runs| runs.near_misses), "near miss", "near misses"),
        count(found.sum(|runs| runs.incidents), "failure", "failures"),
        time,
    ]
    .join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Execs, Runs};

    #[test]
    fn the_line_has_the_sums_and_the_time() {
        let execs = Execs { total: 50, of_written_files: 40, failed: 1 };
        let plain = Runs { runs: 6, near_misses: 3, incidents: 1, execs, ..Runs::default() };
        let provoked = Runs { runs: 6, near_misses: 2, ..Runs::default() };
        let found = Hunt { plain, provoked };
        let run = Run { number: 13, provoked: true };
        let (minute, half) = (Duration::from_secs(60), Duration::from_secs(30));
        assert_eq!(
            line(run, &found, minute, Some(half)),
            "run 13, provoked · 40 execs of written files · 5 near misses · 1 failure · 0:30 left"
        );
        let text = line(run, &found, minute, None);
        assert!(text.ends_with(" · 1 failure · 1:00"), "{text}");
    }
}
