//! Parses the lines of a virtual machine about its tests.

use std::time::Duration;

/// The prefix of init's own lines; the output of tests has the prefix `| `.
const MARK: &str = "@ ";

/// The status of a test that was killed because it exceeded its time limit.
const KILLED: i32 = 128 + 9;

/// The outcome of a test.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Passed,
    /// The test, or a part of it, was skipped, with the reason.
    Skipped(String),
    /// The test failed, with the line that shows the cause.
    Failed(String),
}

#[derive(Debug, PartialEq)]
pub(super) struct Test {
    /// The program's name and the test's name in `cargo test`: `live::scenes::dup`.
    pub(super) name: String,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// What the machine has reported so far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Report {
    /// The output of `uname -r`, when init runs.
    pub(super) release: Option<String>,
    pub(super) tests: Vec<Test>,
    /// The test that is running, and its output.
    running: Option<(String, Vec<String>)>,
    /// Tests in which the machine stopped, or which did not end. The machine may be the cause, so each is
    /// retried once at the end.
    pub(super) retried: Vec<String>,
    pub(super) is_done: bool,
}

impl Report {
    /// Parses a line; returns whether it ended a test.
    pub(super) fn take(&mut self, line: &str) -> bool {
        if let Some(text) = line.strip_prefix("| ") {
            if let Some((_, output)) = &mut self.running {
                output.push(text.to_owned());
            }
            return false;
        }
        let Some((word, rest)) =
            line.strip_prefix(MARK).map(|text| text.split_once(' ').unwrap_or((text, "")))
        else {
            return false;
        };
        match word {
            "booted" => self.release = Some(rest.to_owned()),
            "started" => self.running = Some((rest.replacen(' ', "::", 1), Vec::new())),
            "ended" => {
                if let (Some((name, output)), Some((status, took))) =
                    (self.running.take(), ended(rest))
                {
                    let test = Test { name, outcome: outcome(status, &output), took };
                    if status == KILLED {
                        return self.failed(test);
                    }
                    self.tests.push(test);
                    return true;
                }
            }
            "stopped" => self.stopped(rest),
            "done" => self.is_done = true,
            _ => {}
        }
        false
    }

    /// The machine has stopped for this reason: the running test is retried, or has failed.
    fn stopped(&mut self, why: &str) {
        let Some((name, _)) = self.running.take() else { return };
        let outcome = Outcome::Failed(why.to_owned());
        self.failed(Test { name, outcome, took: Duration::ZERO });
    }

    /// A test has failed, perhaps because of the machine: it is retried unless it has been. Returns whether
    /// the failure is final.
    fn failed(&mut self, test: Test) -> bool {
        let is_final = self.retried.contains(&test.name);
        if is_final {
            self.tests.push(test);
        } else {
            self.retried.push(test.name);
        }
        is_final
    }

    /// The tests with an outcome, in init's form.
    pub(super) fn ended(&self) -> Vec<String> {
        self.tests.iter().map(|test| as_init(&test.name)).collect()
    }

    /// The tests that still have to be retried, in init's form.
    pub(super) fn postponed(&self) -> Vec<String> {
        let has_ended = |name: &&String| self.tests.iter().any(|test| test.name == **name);
        self.retried.iter().filter(|name| !has_ended(name)).map(|name| as_init(name)).collect()
    }
}

/// Init's form of a name: `live scenes::dup` for `live::scenes::dup`.
fn as_init(name: &str) -> String {
    name.replacen("::", " ", 1)
}

/// Parses the status and two times of `/proc/uptime`.
fn ended(text: &str) -> Option<(i32, Duration)> {
    let mut words = text.split(' ');
    let status = words.next()?.parse().ok()?;
    let (before, after): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((status, Duration::try_from_secs_f64(after - before).unwrap_or_default()))
}

fn outcome(status: i32, output: &[String]) -> Outcome {
    if status != 0 {
        return Outcome::Failed(cause(status, output));
    }
    // test-support writes this, possibly on a line that the harness has begun.
    let skipped = output.iter().find_map(|line| line.split_once(" skipped: "));
    skipped.map_or(Outcome::Passed, |(_, why)| Outcome::Skipped(why.to_owned()))
}

/// The maximum length of a cause, because a line can contain a whole incident.
const MAX_CAUSE: usize = 240;

/// The message of the panic, with the two sides of an assertion.
fn cause(status: i32, output: &[String]) -> String {
    let mut panic = output.iter().skip_while(|line| !line.contains("panicked at ")).skip(1);
    match panic.next() {
        Some(line) => {
            let is_side = |line: &&String| {
                let line = line.trim_start();
                line.starts_with("left: ") || line.starts_with("right: ")
            };
            let sides = panic.filter(is_side).map(|side| side.trim_start()).take(2);
            let all: Vec<&str> = [line.as_str()].into_iter().chain(sides).collect();
            all.join("; ").chars().take(MAX_CAUSE).collect()
        }
        None if status == KILLED => "killed: it did not end in time".to_owned(),
        None => {
            let last = output.iter().rev().find(|line| !line.trim().is_empty());
            format!("status {status}: {}", last.map_or("it printed nothing", |line| line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &str) -> Report {
        let mut report = Report::default();
        for line in lines.lines() {
            report.take(line);
        }
        report
    }

    #[test]
    fn tests_pass_or_fail_or_are_skipped() {
        let report = report(
            "noise\n\
             @ booted 6.1.0-56\n\
             @ started live scenes::dup\n\
             | test scenes::dup ... ok\n\
             @ ended 0 1.50 3.75\n\
             @ started live demos::races\n\
             | test demos::races ... demos::races skipped: there is no java\n\
             | ok\n\
             @ ended 0 4.00 5.00\n\
             @ started live races::go22315\n\
             | thread 'races::go22315' (7) panicked at etxtbsy-trace/tests/live/races.rs:9:5:\n\
             | assertion `left == right` failed: Incident {\n\
             |     id: 1,\n\
             |   left: 0\n\
             |  right: 1\n\
             | note: run with `RUST_BACKTRACE=1`\n\
             @ ended 101 6.00 7.00\n\
             @ done\n",
        );
        let test = |name: &str, outcome, took| Test {
            name: name.into(),
            outcome,
            took: Duration::from_millis(took),
        };
        let why = "assertion `left == right` failed: Incident {; left: 0; right: 1";
        assert_eq!(report.release.as_deref(), Some("6.1.0-56"));
        assert_eq!(
            report.tests,
            [
                test("live::scenes::dup", Outcome::Passed, 2250),
                test("live::demos::races", Outcome::Skipped("there is no java".into()), 1000),
                test("live::races::go22315", Outcome::Failed(why.into()), 1000),
            ]
        );
        assert!(report.is_done);
    }

    #[test]
    fn a_test_that_stops_the_machine_is_retried_once() {
        let mut report = report(
            "@ booted 6.1\n@ started live a\n@ ended 0 1.0 2.0\n@ started live races::go22315\n",
        );
        report.stopped("the machine hung");
        assert_eq!(report.ended(), ["live a"]);
        assert_eq!(report.retried, ["live::races::go22315"]);
        report.take("@ started live races::go22315");
        report.stopped("the machine hung");
        assert_eq!(report.tests[1].outcome, Outcome::Failed("the machine hung".into()));
        assert_eq!(report.ended(), ["live a", "live races::go22315"]);
        assert!(!report.is_done);
    }

    #[test]
    fn a_test_that_does_not_end_is_retried_once() {
        let killed = "@ started live x\n@ ended 137 1.0 601.0\n";
        let mut report = report(killed);
        assert_eq!((&report.tests[..], report.postponed()), (&[][..], vec!["live x".to_owned()]));
        killed.lines().for_each(|line| {
            report.take(line);
        });
        assert!(
            matches!(&report.tests[0].outcome, Outcome::Failed(why) if why.contains("in time"))
        );
        assert!(report.postponed().is_empty());
    }

    #[test]
    fn output_that_looks_like_a_mark_is_output() {
        let report = report("@ started live x\n| @ ended 0 1.0 2.0\n");
        assert_eq!(report.tests, []);
    }
}
