//! What the incidents come to, by the directory of the file that was to be run.

use crate::{
    event::{Direction, Incident, Line},
    output::Output,
    text::name,
};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An output that counts; the counts are shared with its clones.
#[derive(Clone, Default)]
pub(super) struct Tally {
    counts: Arc<Mutex<Counts>>,
}

/// The incidents of a trace.
#[derive(Default)]
pub(super) struct Counts {
    by_dir: HashMap<PathBuf, Seen>,
    /// How much was lost: some incidents may be missing.
    pub(super) lost: u64,
}

/// The incidents of one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The first and the last, by id.
    pub(super) ids: Option<(u64, u64)>,
    /// How many.
    pub(super) incidents: u64,
    /// How many by verdict.
    pub(super) verdicts: BTreeMap<String, u64>,
    /// How many holders, by how they came to the file and what they were doing at the failure.
    pub(super) holders: BTreeMap<String, u64>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what was counted.
    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts())
    }
}

impl Output for Tally {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut counts = self.counts();
        match line {
            Line::Incident(incident) => counts.add(incident),
            Line::Lost(lost) => counts.lost += lost.count,
            Line::Meta(_) | Line::Refusal(_) | Line::Summary(_) => {}
        }
        Ok(())
    }
}

impl Counts {
    /// The incidents of files in that directory.
    pub(super) fn of(&self, dir: &Path) -> Seen {
        self.by_dir.get(dir).cloned().unwrap_or_default()
    }

    fn add(&mut self, incident: &Incident) {
        let dir = incident.path.as_deref().map(Path::new).and_then(Path::parent);
        let seen = self.by_dir.entry(dir.map(Path::to_owned).unwrap_or_default()).or_default();
        let id = incident.id;
        seen.ids = Some(seen.ids.map_or((id, id), |(first, last)| (first.min(id), last.max(id))));
        seen.incidents += 1;
        *seen.verdicts.entry(name(incident.verdict.kind)).or_default() += 1;
        for holder in &incident.holders {
            let kind = match incident.direction {
                Direction::Exec | Direction::Other(_) => {
                    format!("via {}, {}", name(holder.via), name(holder.state))
                }
                Direction::Write => format!("via {}", name(holder.via)),
            };
            *seen.holders.entry(kind).or_default() += 1;
        }
    }
}
