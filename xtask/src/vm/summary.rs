//! All kernels side by side.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::report::{Outcome, Report, Test};
use crate::table::Table;

/// What came of one kernel.
pub(super) struct Run {
    /// Its version.
    pub(super) kernel: String,
    /// What was asked for, if this is something else.
    pub(super) wanted: Option<String>,
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
    /// What is wrong with the run as a whole.
    fn trouble(&self) -> Option<&'static str> {
        if self.report.release.is_none() {
            return Some("did not boot");
        }
        (!self.report.is_done).then_some("did not get to the end of the tests")
    }

    fn count(&self, is_it: fn(&Outcome) -> bool) -> String {
        self.report.tests.iter().filter(|test| is_it(&test.outcome)).count().to_string()
    }
}

impl Summary {
    pub(super) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// True if no kernel failed.
    pub(super) fn is_green(&self) -> bool {
        let has_failed = |test: &Test| matches!(test.outcome, Outcome::Failed(_));
        self.runs
            .iter()
            .all(|run| run.trouble().is_none() && !run.report.tests.iter().any(has_failed))
    }

    /// A table of kernels, one of tests and kernels, and a line for all that is not plainly well.
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
        let head = ["Linux", "passed", "skipped", "failed", "took"].map(str::to_owned);
        let mut table = Table::new(head);
        for run in &self.runs {
            let minutes = run.took.as_secs_f64() / 60.0;
            table.row([
                run.kernel.clone(),
                run.count(|it| *it == Outcome::Passed),
                run.count(|it| matches!(it, Outcome::Skipped(_))),
                run.count(|it| matches!(it, Outcome::Failed(_))),
                format!("{minutes:.1} min"),
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

    /// What there is to say, and of which kernels.
    fn remarks(&self) -> BTreeMap<String, Vec<&str>> {
        let mut remarks: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut add = |remark: String, run: &'_ Run| {
            remarks.entry(remark).or_default().push(
                self.runs.iter().find(|it| it.kernel == run.kernel).map_or("", |it| &it.kernel),
            );
        };
        for run in &self.runs {
            if let Some(wanted) = &run.wanted {
                add(format!("no suite of Debian serves {wanted}: this is the closest"), run);
            }
            if let Some(trouble) = run.trouble() {
                add(trouble.to_owned(), run);
            }
            for test in &run.report.tests {
                match &test.outcome {
                    Outcome::Passed => {}
                    Outcome::Skipped(why) => add(format!("{}: skipped: {why}", test.name), run),
                    Outcome::Failed(why) => add(format!("{}: failed: {why}", test.name), run),
                }
            }
        }
        remarks
    }
}
