//! The demos: names, what each shows, and the workload it runs.

use std::io::{self, Write};

/// How long a race goes at most; it ends at a few failures.
const RACE_SECONDS: u64 = 5;
/// How long each half of a comparison goes.
const HALF_SECONDS: u64 = 3;
/// The same on the tour.
const TOUR_SECONDS: u64 = 2;
/// What `demo` alone shows: what it is, another cause, a surprise, a cure.
const TOUR: [&str; 4] = ["go22315", "leaked-daemon", "busy-interpreter", "write-in-child"];

/// A demo.
pub(super) struct Demo {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) about: &'static str,
    /// What it runs.
    pub(super) work: Work,
}

/// What a demo runs.
pub(super) enum Work {
    /// A race, which may or may not happen.
    Race,
    /// One failure, made to happen, by the workload of this name.
    Scene(&'static str),
    /// The race without protection and with it.
    Remedy {
        /// Why none fails, if none does.
        cure: Option<&'static str>,
        /// Why some fail, if some do.
        flaw: Option<&'static str>,
    },
    /// One thing done in several ways.
    Ways {
        /// Why some fail.
        flaw: &'static str,
        /// Why others do not.
        cure: &'static str,
    },
}

impl Demo {
    /// The workload with its arguments.
    pub(super) fn workload(&self, seconds: Option<u64>) -> Vec<String> {
        let words = match self.work {
            Work::Race => {
                let seconds = seconds.unwrap_or(RACE_SECONDS);
                format!("{} --failures 3 --seconds {seconds}", self.name)
            }
            Work::Scene(workload) => workload.to_owned(),
            Work::Remedy { .. } => {
                format!("remedy {} --seconds {}", self.name, seconds.unwrap_or(HALF_SECONDS))
            }
            Work::Ways { .. } => self.name.to_owned(),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// The words after `workload`: for the demo of that name, or for the tour.
///
/// The name is one of [`names`].
pub(super) fn workload(name: Option<&str>, seconds: Option<u64>) -> Vec<String> {
    if let Some(name) = name {
        return find(name).map(|demo| demo.workload(seconds)).unwrap_or_default();
    }
    let seconds = seconds.or(Some(TOUR_SECONDS));
    let stops = TOUR.into_iter().filter_map(find).map(|demo| demo.workload(seconds).join(" "));
    ["tour".to_owned()].into_iter().chain(stops).collect()
}

/// The demo of that name.
pub(super) fn find(name: &str) -> Option<&'static Demo> {
    DEMOS.iter().find(|demo| demo.name == name)
}

/// The demo that runs the workload, or tries the remedy, of that name.
pub(super) fn showing(workload: &str) -> Option<&'static Demo> {
    DEMOS.iter().find(|demo| match demo.work {
        Work::Scene(scene) => scene == workload,
        _ => demo.name == workload,
    })
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

static DEMOS: [Demo; 17] = [
    Demo {
        name: "go22315",
        about: "20 threads that each write a script of their own and run it (golang/go#22315)",
        work: Work::Race,
    },
    Demo {
        name: "rust114554",
        about: "a thread spawns /bin/true, another writes a script and runs it (rust-lang/rust#114554)",
        work: Work::Race,
    },
    Demo {
        name: "java",
        about: "the same from Java's ProcessBuilder (JDK-8068370); needs a JDK",
        work: Work::Race,
    },
    Demo {
        name: "fork-in-progress",
        about: "the child that has a copy of the fd is still being made by its fork",
        work: Work::Scene("fork-in-progress"),
    },
    Demo {
        name: "leaked-daemon",
        about: "a daemon inherited an fd that is not close-on-exec; its parents have ended",
        work: Work::Scene("leaked-daemon"),
    },
    Demo {
        name: "busy-interpreter",
        about: "the script is not busy, the interpreter in its #! line is",
        work: Work::Scene("busy-script-interpreter"),
    },
    Demo {
        name: "passed-fd",
        about: "the fd was sent over a socket, and its opener has closed it",
        work: Work::Scene("passed-fd"),
    },
    Demo {
        name: "shared-mapping",
        about: "a memory mapping keeps the file after its fd was closed",
        work: Work::Scene("shared-mapping"),
    },
    Demo {
        name: "open-running",
        about: "the other direction: a program that runs is opened for writing",
        work: Work::Scene("open-running"),
    },
    Demo {
        name: "rewrite-in-place",
        about: "a linker writes over its old output, unlinks it first, or renames over it (mold)",
        work: Work::Ways {
            flaw: "a file is busy from its open for writing to its close, be it old or new; to \
                   unlink the old one first only helps a linker whose old output is being run",
            cure: "until the new file is closed, the name leads to the old one",
        },
    },
    Demo {
        name: "mutex-spawn",
        about: "remedy: a mutex round the call that spawns",
        work: Work::Remedy {
            cure: None,
            flaw: Some(
                "the call returns when the child's exec has let go of the memory, and the child \
                 closes its copies of the fds after that",
            ),
        },
    },
    Demo {
        name: "mutex-child-exit",
        about: "remedy: a mutex held from the write until the child's exit",
        work: Work::Remedy {
            cure: Some(
                "no other child is made while the file is open, nor lives on when it is run",
            ),
            flaw: None,
        },
    },
    Demo {
        name: "flock",
        about: "remedy: the writer locks the file, and a lock by another open is waited for",
        work: Work::Remedy {
            cure: Some("the lock is free only when all copies of the fd are closed"),
            flaw: Some("the kernel drops the lock a moment before the write access"),
        },
    },
    Demo {
        name: "pipe-above",
        about: "remedy: wait for the end of a pipe opened before the file; the file's fd is above",
        work: Work::Remedy {
            cure: Some(
                "whoever copied the file's fd copied the pipe's too, and an exec lets go of the \
                 higher fd first, which is the file's",
            ),
            flaw: Some(
                "of two children that have both, one can be the last to let go of the pipe and \
                 the other of the file, a moment later",
            ),
        },
    },
    Demo {
        name: "pipe-below",
        about: "the same, the file's fd below the pipe's",
        work: Work::Remedy {
            cure: None,
            flaw: Some(
                "an exec lets go of the higher fd first, which is the pipe's: the pipe ends \
                 before the file is closed",
            ),
        },
    },
    Demo {
        name: "retry",
        about: "remedy: spawn again while it fails with ETXTBSY, for a second at most",
        work: Work::Remedy {
            cure: Some("the holder lets go in its own exec, soon after"),
            flaw: Some("a holder may keep the file for longer than the program tries"),
        },
    },
    Demo {
        name: "write-in-child",
        about: "remedy: a forked child writes the file, its parent never has it open",
        work: Work::Remedy {
            cure: Some("the process that forks never has the file open, so no child copies its fd"),
            flaw: None,
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_tour_has_its_demos() {
        let mut sorted: Vec<_> = names().collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), DEMOS.len());
        assert!(TOUR.iter().all(|name| find(name).is_some()));
    }

    #[test]
    fn a_demo_is_found_by_its_workload() {
        for demo in &DEMOS {
            let workload = demo.workload(None);
            let name = if workload[0] == "remedy" { &workload[1] } else { &workload[0] };
            assert_eq!(showing(name).map(|demo| demo.name), Some(demo.name));
        }
    }
}
