//! Which tests were skipped, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use test_support::RECORD;

use crate::command::{run, step, target_dir};

/// The skipped tests that each run recorded.
#[derive(Default)]
pub(crate) struct Skipped {
    /// The description of each run, and its record.
    runs: Vec<(&'static str, String)>,
}

impl Skipped {
    /// The variable that makes tests record what they skip, and its value.
    pub(crate) fn variable() -> Result<(&'static str, PathBuf)> {
        Ok((RECORD, target_dir()?.join("skipped-tests")))
    }

    /// Runs tests and keeps their record, whether or not they pass.
    pub(crate) fn run(&mut self, user: &'static str, tests: &mut Command) -> Result<()> {
        let (variable, file) = Self::variable()?;
        // Created here, so that it does not belong to root, who may append to it.
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        let result = run(tests.env(variable, &file));
        let record = fs::read_to_string(&file);
        let record = record.with_context(|| format!("cannot read {}", file.display()))?;
        self.runs.push((user, record));
        result
    }

    /// Prints a summary line for each run.
    pub(crate) fn print(&self) {
        for (user, record) in &self.runs {
            step(&format!("{user}: {}", summary(record)));
        }
    }
}

/// The number of skipped tests, and of each reason, the most frequent one first.
fn summary(record: &str) -> String {
    let skipped: BTreeSet<(&str, &str)> =
        record.lines().filter_map(|line| line.split_once('\t')).collect();
    let tests = skipped.iter().map(|(test, _)| test).collect::<BTreeSet<_>>().len();
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, reason) in &skipped {
        *by_reason.entry(reason).or_default() += 1;
    }
    let mut by_reason: Vec<_> = by_reason.into_iter().collect();
    by_reason.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons = by_reason.iter().map(|(reason, count)| format!("{count}: {reason}"));
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    match tests {
        0 => "no test skipped".to_owned(),
        1 => format!("1 test skipped: {reasons}"),
        _ => format!("{tests} tests skipped: {reasons}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_tests_and_reasons() {
        assert_eq!(summary(""), "no test skipped");
        assert_eq!(summary("a\tno FUSE\n"), "1 test skipped: 1: no FUSE");
        let record = "a\tno java\nb\tno FUSE\nb\tno FUSE\nc\tno FUSE\na\tno FUSE\n";
        assert_eq!(summary(record), "3 tests skipped: 3: no FUSE; 1: no java");
    }
}
