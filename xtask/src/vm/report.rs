//! What the virtual machine says of its tests.

use std::time::Duration;

/// How init marks what it says itself; the output of tests is marked with `| `.
const MARK: &str = "@ ";

/// The status of a test that was killed, as it had not ended in time.
const KILLED: i32 = 128 + 9;

/// What became of a test.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Passed,
    /// The test, or a part of it, was left out, and says why.
    Skipped(String),
    /// With the line that says why.
    Failed(String),
}

#[derive(Debug, PartialEq)]
pub(super) struct Test {
    /// As in `cargo test`, after the name of the program: `live::scenes::dup`.
    pub(super) name: String,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// What was said so far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Report {
    /// What `uname -r` says, once init runs.
    pub(super) release: Option<String>,
    pub(super) tests: Vec<Test>,
    /// The test under way, and what it has written.
    running: Option<(String, Vec<String>)>,
    /// The tests in which a machine stopped, or which did not end: whether the machine was the
    /// reason, nobody can tell. Each is tried once more, in the end.
    pub(super) again: Vec<String>,
    pub(super) is_done: bool,
}

impl Report {
    /// Takes a line; true if a test has ended with it.
    pub(super) fn take(&mut self, line: &str) -> bool {
        if let Some(said) = line.strip_prefix("| ") {
            if let Some((_, output)) = &mut self.running {
                output.push(said.to_owned());
            }
            return false;
        }
        let Some((word, rest)) =
            line.strip_prefix(MARK).map(|said| said.split_once(' ').unwrap_or((said, "")))
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

    /// The machine has stopped, for this reason: the test under way is to be tried again, or has
    /// failed with it.
    fn stopped(&mut self, why: &str) {
        let Some((name, _)) = self.running.take() else { return };
        let outcome = Outcome::Failed(why.to_owned());
        self.failed(Test { name, outcome, took: Duration::ZERO });
    }

    /// A test has failed, perhaps by the machine's fault: it is to be tried again, unless it has been.
    /// True if that was its end.
    fn failed(&mut self, test: Test) -> bool {
        let is_end = self.again.contains(&test.name);
        if is_end {
            self.tests.push(test);
        } else {
            self.again.push(test.name);
        }
        is_end
    }

    /// The tests that have an outcome, as init names them.
    pub(super) fn ended(&self) -> Vec<String> {
        self.tests.iter().map(|test| as_init(&test.name)).collect()
    }

    /// The tests that are to be tried again, in the same way.
    pub(super) fn put_off(&self) -> Vec<String> {
        let has_ended = |name: &&String| self.tests.iter().any(|test| test.name == **name);
        self.again.iter().filter(|name| !has_ended(name)).map(|name| as_init(name)).collect()
    }
}

/// `live scenes::dup` of `live::scenes::dup`.
fn as_init(name: &str) -> String {
    name.replacen("::", " ", 1)
}

/// The status, and the time between two of `/proc/uptime`.
fn ended(said: &str) -> Option<(i32, Duration)> {
    let mut words = said.split(' ');
    let status = words.next()?.parse().ok()?;
    let (before, after): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((status, Duration::try_from_secs_f64(after - before).unwrap_or_default()))
}

fn outcome(status: i32, output: &[String]) -> Outcome {
    if status != 0 {
        return Outcome::Failed(cause(status, output));
    }
    // As test-support writes it; what the harness began to write may be on the same line.
    let skipped = output.iter().find_map(|line| line.split_once(" skipped: "));
    skipped.map_or(Outcome::Passed, |(_, why)| Outcome::Skipped(why.to_owned()))
}

/// How much of a line says why; a whole incident can be in one.
const CAUSE: usize = 240;

/// The line after that which says where the test panicked, with the two sides of an assertion.
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
            all.join("; ").chars().take(CAUSE).collect()
        }
        None if status == KILLED => "killed: it had not ended in time".to_owned(),
        None => {
            let last = output.iter().rev().find(|line| !line.trim().is_empty());
            format!("status {status}: {}", last.map_or("it said nothing", |line| line))
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
    fn a_test_that_stops_the_machine_is_tried_once_more() {
        let mut report = report(
            "@ booted 6.1\n@ started live a\n@ ended 0 1.0 2.0\n@ started live races::go22315\n",
        );
        report.stopped("the machine hung");
        assert_eq!(report.ended(), ["live a"]);
        assert_eq!(report.again, ["live::races::go22315"]);
        report.take("@ started live races::go22315");
        report.stopped("the machine hung");
        assert_eq!(report.tests[1].outcome, Outcome::Failed("the machine hung".into()));
        assert_eq!(report.ended(), ["live a", "live races::go22315"]);
        assert!(!report.is_done);
    }

    #[test]
    fn a_test_that_does_not_end_is_tried_once_more() {
        let killed = "@ started live x\n@ ended 137 1.0 601.0\n";
        let mut report = report(killed);
        assert_eq!((&report.tests[..], report.put_off()), (&[][..], vec!["live x".to_owned()]));
        killed.lines().for_each(|line| {
            report.take(line);
        });
        assert!(
            matches!(&report.tests[0].outcome, Outcome::Failed(why) if why.contains("in time"))
        );
        assert!(report.put_off().is_empty());
    }

    #[test]
    fn output_that_looks_like_a_mark_is_output() {
        let report = report("@ started live x\n| @ ended 0 1.0 2.0\n");
        assert_eq!(report.tests, []);
    }
}
