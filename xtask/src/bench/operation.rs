//! The operations that are measured. Each is repeated in a process of its own.

mod child;
mod failing_exec;
mod near_miss;
mod process;
mod rows;
mod scratch;
mod system_call;
mod timing;
mod window;

use std::{fmt, path::Path, str::FromStr, time::Duration};

use anyhow::Result;

use child::Child;
use failing_exec::FailingExec;
use near_miss::NearMiss;
use system_call::SystemCall;
pub(super) use timing::{Measured, cpu_time};

/// What a process writes when it is ready to measure.
pub(super) const READY: &str = "ready";

/// An operation that is repeated: a row of the tables.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    /// Its name on the command line.
    pub(super) word: &'static str,
    /// Its name in the tables.
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    SystemCall(SystemCall),
    Child(Child),
    NearMiss(NearMiss),
    FailingExec(FailingExec),
    /// No call: how long a file is open for writing.
    Window,
}

impl Operation {
    /// Repeats the operation for that long in this process, with new files in `dir`. Calls `say` when files
    /// and processes exist, and with the result before they are removed.
    pub(super) fn measure(
        self,
        slice: Duration,
        dir: &Path,
        say: &dyn Fn(&str) -> Result<()>,
    ) -> Result<()> {
        let mut prepared = match self.kind {
            Kind::SystemCall(call) => call.prepare(dir),
            Kind::Child(child) => child.prepare(dir),
            Kind::NearMiss(near_miss) => near_miss.prepare(dir),
            Kind::FailingExec(exec) => exec.prepare(dir),
            Kind::Window => {
                say(READY)?;
                return say(&window::measure(slice, dir)?.to_string());
            }
        }?;
        say(READY)?;
        say(&prepared.measure(slice)?.to_string())
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let all = Self::all();
        let found = all.iter().find(|operation| operation.word == word);
        found.copied().ok_or_else(|| {
            let words: Vec<_> = all.iter().map(|operation| operation.word).collect();
            format!("no such operation; there are: {}", words.join(", "))
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_operation_is_found_by_its_word() {
        let all = Operation::all();
        let words: HashSet<_> = all.iter().map(|operation| operation.word).collect();
        assert_eq!(words.len(), all.len());
        for operation in all {
            assert_eq!(operation.word.parse::<Operation>().unwrap().word, operation.word);
        }
    }

    #[test]
    fn an_unknown_operation_is_refused_with_the_known_ones() {
        let Err(error) = "sleep".parse::<Operation>() else { panic!("it was found") };
        assert!(error.starts_with("no such operation; there are: null-call, open-for-reading,"));
    }
}
