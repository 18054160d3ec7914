//! The demos: their names, what each shows, and the workload that each runs.

use std::io::{self, Write};

/// The longest duration of a race; it ends earlier after a few failures.
const RACE_SECONDS: u64 = 5;
/// The duration of each side of a comparison.
const SIDE_SECONDS: u64 = 3;
/// How many threads race in the demo of a remedy.
const THREADS: u32 = 8;
/// How long a thread of a rare race waits between the close and the spawn: a child has mostly exec'd by then.
const PAUSE_MICROS: u64 = 1_000;
/// The duration of a race, or of each side, on the tour.
const TOUR_SECONDS: u64 = 2;
/// The demos that `demo` runs without a name: the common cause, another cause, a surprise, a cure.
const TOUR: [&str; 4] = ["go22315", "leaked-daemon", "busy-interpreter", "write-in-child"];

/// A demo.
pub(super) struct Demo {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) about: &'static str,
    pub(super) kind: DemoKind,
}

/// The kind of workload that a demo runs.
pub(super) enum DemoKind {
    /// A race, in which failures may or may not happen.
    Race,
    /// One certain failure, by the workload of this name.
    Scene(&'static str),
    /// A race without a remedy, then with it.
    Remedy {
        /// How many threads race.
        threads: u32,
        /// Why no exec fails, if none does.
        cure: Option<&'static str>,
        /// Why some execs fail, if some do.
        flaw: Option<&'static str>,
    },
    /// A race that seldom fails, without the remedy of this name, then with it.
    Rare(&'static str),
    /// Hunts for a race, before and after a fix. The demo traces nothing itself.
    Hunt,
    /// The same task done in several ways.
    Ways {
        /// Why some ways fail.
        flaw: &'static str,
        /// Why the others do not.
        cure: &'static str,
    },
}

impl Demo {
    /// The name and arguments of the workload.
    pub(super) fn workload(&self, seconds: Option<u64>) -> Vec<String> {
        let words = match self.kind {
            DemoKind::Race => {
                let seconds = seconds.unwrap_or(RACE_SECONDS);
                format!("{} --failures 3 --seconds {seconds}", self.name)
            }
            DemoKind::Scene(workload) => workload.to_owned(),
            DemoKind::Remedy { threads, .. } => {
                let seconds = seconds.unwrap_or(SIDE_SECONDS);
                format!("remedy {} --seconds {seconds} --threads {threads}", self.name)
            }
            DemoKind::Rare(remedy) => format!(
                "remedy {remedy} --spawn fork --pause {PAUSE_MICROS} --scenario {} --seconds {}",
                self.name,
                seconds.unwrap_or(SIDE_SECONDS)
            ),
            DemoKind::Ways { .. } | DemoKind::Hunt => self.name.to_owned(),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// The arguments of `workload` for the demo of that name, which is one of [`names`], or for the tour.
pub(super) fn workload(name: Option<&str>, seconds: Option<u64>) -> Vec<String> {
    if let Some(name) = name {
        return find(name).map(|demo| demo.workload(seconds)).unwrap_or_default();
    }
    let seconds = seconds.or(Some(TOUR_SECONDS));
    let stops = TOUR.into_iter().filter_map(find).map(|demo| demo.workload(seconds).join(" "));
    ["tour".to_owned()].into_iter().chain(stops).collect()
}

/// What the demo of that name shows, or each part of the tour, in order.
pub(super) fn captions(name: Option<&str>) -> Vec<String> {
    let caption = |Demo { name, about, .. }: &Demo| format!("demo {name}: {about}");
    if let Some(name) = name {
        return find(name).map(caption).into_iter().collect();
    }
    let parts = TOUR.into_iter().filter_map(find).zip(1..);
    let parts = parts.map(|(demo, at)| format!("{at} of {}, {}", TOUR.len(), caption(demo)));
    parts.collect()
}

/// The demo of that name.
pub(super) fn find(name: &str) -> Option<&'static Demo> {
    DEMOS.iter().find(|demo| demo.name == name)
}

/// The demo of that workload or remedy.
pub(super) fn find_by_workload(workload: &str) -> Option<&'static Demo> {
    DEMOS.iter().find(|demo| match demo.kind {
        DemoKind::Scene(scene) => scene == workload,
        _ => demo.name == workload,
    })
}

/// Whether the demo of that name hunts, and so traces nothing itself.
pub fn hunts(name: Option<&str>) -> bool {
    name.and_then(find).is_some_and(|demo| matches!(demo.kind, DemoKind::Hunt))
}

/// The names of all demos.
pub fn names() -> impl Iterator<Item = &'static str> {
    DEMOS.iter().map(|demo| demo.name)
}

/// Prints a line for each demo.
pub fn list(out: &mut impl Write) -> io::Result<()> {
    let width = names().map(str::len).max().unwrap_or(0);
    for Demo { name, about, .. } in &DEMOS {
        writeln!(out, "{name:width$}  {about}")?;
    }
    Ok(())
}

static DEMOS: [Demo; 21] = [
    Demo {
        name: "go22315",
        about: "20 threads each write their own script and run it (golang/go#22315)",
        kind: DemoKind::Race,
    },
    Demo {
        name: "rust114554",
        about: "a thread spawns /bin/true, another writes a script and runs it (rust-lang/rust#114554)",
        kind: DemoKind::Race,
    },
    Demo {
        name: "java",
        about: "threads write and run scripts with Java's ProcessBuilder (JDK-8068370); needs a JDK",
        kind: DemoKind::Race,
    },
    Demo {
        name: "near-miss",
        about: "a race that fails once in thousands of execs: those that could have failed, before and after a fix",
        kind: DemoKind::Rare("write-in-child"),
    },
    Demo {
        name: "hunt",
        about: "`hunt --provoke` finds a race, then shows that its fix works",
        kind: DemoKind::Hunt,
    },
    Demo {
        name: "fork-in-progress",
        about: "a child has a copy of the fd while its fork is still in progress",
        kind: DemoKind::Scene("fork-in-progress"),
    },
    Demo {
        name: "leaked-daemon",
        about: "a daemon inherited an fd that is not close-on-exec; its parents have ended",
        kind: DemoKind::Scene("leaked-daemon"),
    },
    Demo {
        name: "busy-interpreter",
        about: "the busy file is the interpreter in the script's #! line, not the script",
        kind: DemoKind::Scene("busy-script-interpreter"),
    },
    Demo {
        name: "passed-fd",
        about: "the fd was sent over a socket, and its opener has closed it",
        kind: DemoKind::Scene("passed-fd"),
    },
    Demo {
        name: "shared-mapping",
        about: "a memory mapping keeps the file after its fd was closed",
        kind: DemoKind::Scene("shared-mapping"),
    },
    Demo {
        name: "open-running",
        about: "the other direction: an open for writing fails because the program is running",
        kind: DemoKind::Scene("open-running"),
    },
    Demo {
        name: "rewrite-in-place",
        about: "a linker overwrites its old output, unlinks it first, or renames over it (mold)",
        kind: DemoKind::Ways {
            flaw: "a file is busy from its open for writing until its close, whether it is new or \
                   old; unlinking the old file first only helps while the old output is running",
            cure: "the name refers to the old file until the new one is closed",
        },
    },
    Demo {
        name: "mutex-spawn",
        about: "remedy: hold a mutex during the call that spawns",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: None,
            flaw: Some(
                "the call returns when the child's exec has released the parent's memory, and the \
                 child closes its copies of the fds after that",
            ),
        },
    },
    Demo {
        name: "mutex-child-exit",
        about: "remedy: hold a mutex from the write until the child's exit",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: Some(
                "no other child is forked while the file is open, and none is alive when it is run",
            ),
            flaw: None,
        },
    },
    Demo {
        name: "flock",
        about: "remedy: the writer locks the file; before the exec, wait for the lock through another open",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: Some("the lock is released only when all copies of the fd are closed"),
            flaw: Some("the kernel releases the lock a moment before the write access"),
        },
    },
    Demo {
        name: "fsync",
        about: "popular fix: fsync the file before closing it",
        kind: DemoKind::Remedy {
            // It keeps each file open for so long that with more threads most scripts fail.
            threads: 3,
            cure: None,
            flaw: Some("fsync is about the disk; the child's copy of the fd stays open"),
        },
    },
    Demo {
        name: "rename",
        about: "popular fix: write another name, then rename it",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: None,
            flaw: Some("the file is the same one under another name, and the child has it open"),
        },
    },
    Demo {
        name: "pipe-above",
        about: "remedy: wait for the end of file of a pipe whose fd is below the file's fd",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: Some(
                "a child that copied the file's fd also copied the pipe's fd, and an exec closes the \
                 higher fd first, which is the file's",
            ),
            flaw: Some(
                "if two children have both fds, one can close the pipe last and the other the file, \
                 a moment later",
            ),
        },
    },
    Demo {
        name: "pipe-below",
        about: "remedy: the same, but the pipe's fd is above the file's fd",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: None,
            flaw: Some(
                "an exec closes the higher fd first, which is the pipe's: the pipe ends before the \
                 file is closed",
            ),
        },
    },
    Demo {
        name: "retry",
        about: "remedy: repeat the spawn while it fails with ETXTBSY, for at most a second",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: Some("the holder drops the file in its own exec, soon after"),
            flaw: Some("a holder can keep the file for longer than the program retries"),
        },
    },
    Demo {
        name: "write-in-child",
        about: "remedy: a forked child writes the file, so the parent never has it open",
        kind: DemoKind::Remedy {
            threads: THREADS,
            cure: Some("the process that forks never has the file open, so no child copies its fd"),
            flaw: None,
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_tour_has_only_known_demos() {
        let mut sorted: Vec<_> = names().collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), DEMOS.len());
        assert!(TOUR.iter().all(|name| find(name).is_some()));
    }

    #[test]
    fn each_part_of_the_tour_has_a_caption() {
        let tour = captions(None);
        assert_eq!(tour.len(), TOUR.len());
        assert!(tour[1].starts_with("2 of 4, demo leaked-daemon: a daemon"), "{tour:?}");
        assert_eq!(captions(Some("passed-fd")).len(), 1);
    }

    #[test]
    fn a_demo_is_found_by_its_workload() {
        for demo in &DEMOS {
            let workload = demo.workload(None);
            let name = match (workload[0].as_str(), &demo.kind) {
                ("remedy", DemoKind::Rare(_)) => demo.name,
                ("remedy", _) => &workload[1],
                (name, _) => name,
            };
            assert_eq!(find_by_workload(name).map(|demo| demo.name), Some(demo.name));
        }
    }
}
