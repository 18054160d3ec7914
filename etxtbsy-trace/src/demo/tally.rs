//! Counts incidents by the directory of their file.

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

/// An output that counts incidents. Clones share the counts.
#[derive(Clone, Default)]
pub(super) struct Tally {
    counts: Arc<Mutex<Counts>>,
}

/// The counts of a trace.
#[derive(Default)]
pub(super) struct Counts {
    by_dir: HashMap<PathBuf, DirIncidents>,
    /// The number of losses; some incidents may be missing.
    pub(super) lost: u64,
}

/// The counts of one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DirIncidents {
    /// The first and the last, by id.
    pub(super) ids: Option<(u64, u64)>,
    /// How many incidents.
    pub(super) incidents: u64,
    /// How many by verdict.
    pub(super) verdicts: BTreeMap<String, u64>,
    /// How many near misses.
    pub(super) near_misses: u64,
    /// How many holders, by `via` and `state`.
    pub(super) holders: BTreeMap<String, u64>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the counts.
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
            Line::NearMiss(near) => {
                counts.of_file(near.path.as_deref()).near_misses += near.count;
            }
            Line::Meta(_) | Line::Refusal(_) | Line::Summary(_) => {}
        }
        Ok(())
    }
}

impl Counts {
    /// The counts of files in that directory.
    pub(super) fn of(&self, dir: &Path) -> DirIncidents {
        self.by_dir.get(dir).cloned().unwrap_or_default()
    }

    fn of_file(&mut self, path: Option<&str>) -> &mut DirIncidents {
        let dir = path.map(Path::new).and_then(Path::parent);
        self.by_dir.entry(dir.map(Path::to_owned).unwrap_or_default()).or_default()
    }

    fn add(&mut self, incident: &Incident) {
        let counted = self.of_file(incident.path.as_deref());
        let id = incident.id;
        counted.ids =
            Some(counted.ids.map_or((id, id), |(first, last)| (first.min(id), last.max(id))));
        counted.incidents += 1;
        *counted.verdicts.entry(name(incident.verdict.kind)).or_default() += 1;
        for holder in &incident.holders {
            let kind = match incident.direction {
                Direction::Exec | Direction::Other(_) => {
                    format!("via {}, {}", name(holder.via), name(holder.state))
                }
                Direction::Write => format!("via {}", name(holder.via)),
            };
            *counted.holders.entry(kind).or_default() += 1;
        }
    }
}
