//! The results of all kernels.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::report::{Outcome, Report, Test};
use crate::table::Table;

/// The result of one kernel.
#[derive(Debug, PartialEq)]
pub(super) struct Run {
    /// Its version.
    pub(super) kernel: String,
    /// The requested version, if this is another one.
    pub(super) wanted: Option<String>,
    /// The tested commit, by `git describe`.
    pub(super) commit: String,
    pub(super) report: Report,
    pub(super) took: Duration,
}

#[derive(Default)]
pub(super) struct Summary {
    runs: Vec<Run>,
}

/// Result and time of a test.
pub(super) fn cell(test: &Test) -> String {
    let word = match test.outcome {
        Outcome::Passed => "ok",
        Outcome::Skipped(_) => "skipped",
        Outcome::Failed(_) => "FAILED",
    };
    format!("{word} {:.1} s", test.took.as_secs_f64())
}

impl Run {
    /// Parses the log of a run of all tests; `None` if the run was not complete.
    pub(super) fn parse(kernel: &str, text: &str) -> Option<Self> {
        let mut report = Report::default();
        for line in text.lines() {
            report.take(line);
        }
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
        Some(Self {
            kernel: kernel.to_owned(),
            wanted: value("@ instead ").map(str::to_owned),
            commit: value("@ commit ")?.to_owned(),
            report,
            took: Duration::try_from_secs_f64(value("@ took ")?.parse().ok()?).ok()?,
        })
    }

    /// The lines to append to the log of its report.
    pub(super) fn last_lines(&self) -> String {
        let wanted = self.wanted.iter().map(|wanted| format!("@ instead {wanted}\n"));
        let took = self.took.as_secs_f64();
        wanted.chain([format!("@ commit {}\n@ took {took:.1}\n", self.commit)]).collect()
    }

    /// A fault of the run as a whole.
    fn trouble(&self) -> Option<&'static str> {
        if self.report.release.is_none() {
            return Some("did not boot");
        }
        if !self.report.is_done {
            return Some("did not complete the tests");
        }
        self.report.tests.is_empty().then_some("ran no test: no name matches")
    }

    fn count(&self, is_it: fn(&Outcome) -> bool) -> String {
        self.report.tests.iter().filter(|test| is_it(&test.outcome)).count().to_string()
    }
}

impl Summary {
    pub(super) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Whether all tests on all kernels passed.
    pub(super) fn is_green(&self) -> bool {
        let has_failed = |test: &Test| matches!(test.outcome, Outcome::Failed(_));
        self.runs
            .iter()
            .all(|run| run.trouble().is_none() && !run.report.tests.iter().any(has_failed))
    }

    /// A table of kernels, a table of tests and kernels, and a line for each remark.
    pub(super) fn shown(&self, markdown: bool) -> String {
        let mut shown = self.kernels().shown(markdown);
        shown.push('\n');
        shown += &self.tests().shown(markdown);
        let remarks = self.remarks();
        if !remarks.is_empty() {
            shown.push('\n');
        }
        for (remark, kernels) in remarks {
            // Writing to a String cannot fail.
            let _ = writeln!(shown, "- {remark} ({})", kernels.join(", "));
        }
        shown
    }

    fn kernels(&self) -> Table {
        let head = ["Linux", "passed", "skipped", "failed", "took", "commit"].map(str::to_owned);
        let mut table = Table::new(head);
        for run in &self.runs {
            let minutes = run.took.as_secs_f64() / 60.0;
            table.row([
                run.kernel.clone(),
                run.count(|it| *it == Outcome::Passed),
                run.count(|it| matches!(it, Outcome::Skipped(_))),
                run.count(|it| matches!(it, Outcome::Failed(_))),
                format!("{minutes:.1} min"),
                run.commit.clone(),
            ]);
        }
        table
    }

    fn tests(&self) -> Table {
        let kernels = self.runs.iter().map(|run| run.kernel.clone());
        let mut table = Table::new(["test".to_owned()].into_iter().chain(kernels));
        let mut names: Vec<&str> = Vec::new();
        for test in self.runs.iter().flat_map(|run| &run.report.tests) {
            if !names.contains(&test.name.as_str()) {
                names.push(&test.name);
            }
        }
        for name in names {
            let of = |run: &Run| {
                let test = run.report.tests.iter().find(|test| test.name == name);
                test.map_or("not run".to_owned(), cell)
            };
            table.row([name.to_owned()].into_iter().chain(self.runs.iter().map(of)));
        }
        table
    }

    /// Remarks, with the kernels that each concerns.
    fn remarks(&self) -> BTreeMap<String, Vec<&str>> {
        let mut remarks: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for run in &self.runs {
            let mut add = |remark: String| remarks.entry(remark).or_default().push(&run.kernel);
            if let Some(wanted) = &run.wanted {
                add(format!("no Debian suite has {wanted}: this is the closest"));
            }
            if let Some(trouble) = run.trouble() {
                add(trouble.to_owned());
            }
            for name in &run.report.retried {
                add(format!("{name}: the machine stopped during it, or it did not end: retried"));
            }
            for test in &run.report.tests {
                match &test.outcome {
                    Outcome::Passed => {}
                    Outcome::Skipped(why) => add(format!("{}: skipped: {why}", test.name)),
                    Outcome::Failed(why) => add(format!("{}: failed: {why}", test.name)),
                }
            }
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kernel: &str, lines: &str) -> Run {
        let mut report = Report::default();
        for line in lines.lines() {
            report.take(line);
        }
        let wanted = (kernel == "6.19.14").then(|| "6.18".to_owned());
        let (kernel, commit) = (kernel.into(), "1a2b3c4".into());
        Run { kernel, wanted, commit, report, took: Duration::from_secs(90) }
    }

    #[test]
    fn kernels_are_columns() {
        let mut summary = Summary::default();
        summary.add(run(
            "6.1.192",
            "@ booted 6.1\n@ started live a\n@ ended 0 1.0 2.5\n\
             @ started live b\n| b skipped: there is no java\n@ ended 0 2.5 3.0\n@ done",
        ));
        assert!(summary.is_green());
        summary.add(run("6.19.14", "@ booted 6.19\n@ started live a\n@ ended 101 1.0 3.0\n@ done"));
        assert!(!summary.is_green());
        assert_eq!(
            summary.shown(true),
            "| Linux   | passed | skipped | failed |    took |  commit |\n\
             | ------- | -----: | ------: | -----: | ------: | ------: |\n\
             | 6.1.192 |      1 |       1 |      0 | 1.5 min | 1a2b3c4 |\n\
             | 6.19.14 |      0 |       0 |      1 | 1.5 min | 1a2b3c4 |\n\
             \n\
             | test    |       6.1.192 |      6.19.14 |\n\
             | ------- | ------------: | -----------: |\n\
             | live::a |      ok 1.5 s | FAILED 2.0 s |\n\
             | live::b | skipped 0.5 s |      not run |\n\
             \n\
             - live::a: failed: status 101: it printed nothing (6.19.14)\n\
             - live::b: skipped: there is no java (6.1.192)\n\
             - no Debian suite has 6.18: this is the closest (6.19.14)\n"
        );
    }

    #[test]
    fn a_run_survives_its_log() {
        let lines = "@ booted 6.19\n@ started live a\n@ stopped it hung\n@ started live a\n\
                     | said\n@ ended 0 1.0 3.0\n@ done\n";
        let run = run("6.19.14", lines);
        assert_eq!(run.report.retried, ["live::a"]);
        let kept = format!("{lines}{}", run.last_lines());
        assert_eq!(Run::parse("6.19.14", &kept), Some(run));
        assert_eq!(Run::parse("6.19.14", lines), None, "it has no end");
    }

    #[test]
    fn a_kernel_without_tests_is_not_green() {
        for lines in ["", "@ booted 6.1", "@ booted 6.1\n@ done"] {
            let mut summary = Summary::default();
            summary.add(run("6.1.192", lines));
            assert!(!summary.is_green(), "{lines}");
        }
    }
}
