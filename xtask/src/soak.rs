//! A long run under loads with known failures: checks that the tracer's memory and fds do not grow, and
//! that its clock and incidents are right.

use std::{
    env, fmt, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::Value;

use crate::command::{self, root, step};

/// The loads, which run in turn: scenes with one known failure each, and loads with many failures.
const LOADS: [&str; 24] = [
    "still-open",
    "between-fork-and-exec",
    "storm forks --count 2000 --seconds 5",
    "leaked-daemon",
    "several-holders",
    "storm opens --count 100000 --seconds 5",
    "dup2",
    "released-by-exec",
    "released-by-kill",
    "ground-truth --seconds 2",
    "mixed --seconds 5 --pause 3000 --seed 1",
    "passed-fd",
    "in-flight-fd",
    "storm threads --count 5000 --seconds 5",
    "shared-mapping",
    "shared-table",
    "reused-fd",
    "storm execs --count 200000 --seconds 5",
    "open-running",
    "storm held --count 5000",
    "mixed --seconds 5 --pause 10000 --seed 2",
    "closed-again",
    "mixed --seconds 5 --pause 2000 --processes 8 --files 2 --seed 3",
    "ground-truth --seconds 2",
];
/// The exit status of a workload that cannot run here.
const UNSUPPORTED: i32 = 77;
/// How long the tracer may take to report a load's incidents: a few times its grace period.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of printed faults of a comparison.
const MAX_DESCRIBED: usize = 5;
/// The maximum error of a time, in nanoseconds.
const DRIFT: i128 = 100_000_000;
/// How much memory may grow above the maximum of the first half: a tenth plus some pages.
const GROWTH: (u64, u64) = (10, 1 << 20);

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Duration
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Uses this program instead of building one
    #[arg(long, value_name = "FILE")]
    pub(crate) tracer: Option<PathBuf>,
}

/// Runs the loads under `tracer` as root; starts this program again with sudo if needed. Fails if memory or
/// fds grew, or if anything was wrong.
pub(crate) fn run(args: &Args, tracer: &Path) -> Result<()> {
    if !command::is_root() {
        step("a long run, as root: loading eBPF programs needs root");
        let mut again =
            root(env::current_exe().context("cannot find the executable of this program")?);
        again.args(["soak", "--minutes", &args.minutes.to_string(), "--tracer"]).arg(tracer);
        return command::run(&mut again);
    }
    let mut soak = Soak::start(tracer)?;
    let (began, mut printed) = (Instant::now(), 0);
    for load in LOADS.iter().cycle() {
        if began.elapsed() >= Duration::from_secs(args.minutes * 60) {
            break;
        }
        soak.load(tracer, load)?;
        let minutes = began.elapsed().as_secs() / 60;
        if minutes > printed {
            printed = minutes;
            soak.print(minutes);
        }
    }
    soak.end()
}

/// The tracer's resources after a load.
#[derive(Clone, Copy)]
struct Sample {
    /// `VmRSS`, in bytes.
    resident: u64,
    fds: u64,
}

/// A tracer of this process's tree, and the results.
struct Soak {
    tracer: Child,
    lines: Receiver<Value>,
    samples: Vec<Sample>,
    loads: u64,
    /// How many calls of the loads failed.
    failures: u64,
    incidents: u64,
    lost: u64,
    /// The maximum error of a time, in nanoseconds.
    drift: i128,
    wrong: Vec<String>,
    compared: Compared,
}

/// The results of all comparisons of the loads `mixed`.
#[derive(Default)]
struct Compared {
    failures: u64,
    certain: u64,
    wrong: u64,
    wrong_in_certain: u64,
    sure: u64,
    missed: u64,
}

impl Compared {
    fn add(&mut self, count: &impl Fn(&str) -> u64) {
        self.failures += count("compared");
        self.certain += count("certain");
        self.wrong += count("wrong");
        self.wrong_in_certain += count("wrong_in_certain");
        self.sure += count("sure");
        self.missed += count("missed");
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} failures of mixed loads, {} certain; {} wrong holders, {} in certain incidents; \
             {} of {} certain holders missed",
            self.failures, self.certain, self.wrong, self.wrong_in_certain, self.missed, self.sure,
        )
    }
}

impl Soak {
    fn start(tracer: &Path) -> Result<Self> {
        let mut tracer = Command::new(tracer)
            .args(["--json", "--pid", &process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", tracer.display()))?;
        let stdout = tracer.stdout.take().context("the tracer has no stdout")?;
        let (send, lines) = mpsc::channel();
        // The thread ends with the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap_or_default()).is_err() {
                    return;
                }
            }
        });
        let meta: Value = lines.recv().context("the tracer ended before tracing was live")?;
        ensure!(meta["type"] == "meta", "the first line is {meta}");
        Ok(Self {
            tracer,
            lines,
            samples: Vec::new(),
            loads: 0,
            failures: 0,
            incidents: 0,
            lost: 0,
            drift: 0,
            wrong: Vec::new(),
            compared: Compared::default(),
        })
    }

    /// Runs a load to its end, and compares its report with the incidents.
    fn load(&mut self, program: &Path, load: &str) -> Result<()> {
        let ran = Command::new(program).arg("workload").args(load.split(' ')).output()?;
        if ran.status.code() == Some(UNSUPPORTED) {
            return Ok(());
        }
        ensure!(ran.status.success(), "{load}: {}", String::from_utf8_lossy(&ran.stderr).trim());
        let known: Value = serde_json::from_slice(&ran.stdout).with_context(|| load.to_owned())?;
        // A scene has one failure; the mixed load also has refused writes.
        let refused = known["refused"].as_u64().unwrap_or(0);
        let failures = known["failures"].as_u64().unwrap_or(1) + refused;
        let (until, mut incidents, mut lost) = (Instant::now() + REPORT_TIMEOUT, Vec::new(), 0);
        let mut losses = Vec::new();
        while incidents.len() as u64 + lost < failures {
            let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
            else {
                break;
            };
            match line["type"].as_str() {
                Some("incident") => {
                    self.drift = self.drift.max(drift(&line)?);
                    incidents.push(line);
                }
                Some("lost") => {
                    let of_failures =
                        line["kind"].as_str().is_some_and(|kind| kind.starts_with("failures-"));
                    let count = line["count"].as_u64().unwrap_or(0);
                    self.lost += count;
                    lost += if of_failures { count } else { 0 };
                    losses.push(line);
                }
                _ => bail!("the tracer ended early: {line}"),
            }
        }
        self.loads += 1;
        self.failures += failures;
        self.incidents += incidents.len() as u64;
        if incidents.len() as u64 + lost != failures {
            let reported = incidents.len();
            self.wrong
                .push(format!("{load}: {reported} of {failures} failures reported, {lost} lost"));
        }
        if known["refused"].is_u64() {
            self.compare(program, load, &ran.stdout, incidents.iter().chain(&losses))?;
        } else {
            let faults = incidents.iter().filter_map(|incident| fault(&known, incident));
            self.wrong.extend(faults.map(|fault| format!("{load}: {fault}")));
        }
        let proc = PathBuf::from(format!("/proc/{}", self.tracer.id()));
        self.samples.push(Sample {
            resident: resident(&proc)?,
            fds: fs::read_dir(proc.join("fd"))?.count() as u64,
        });
        Ok(())
    }

    /// Runs `workload compare`, which compares each incident with the report of a load.
    fn compare<'a>(
        &mut self,
        program: &Path,
        load: &str,
        report: &[u8],
        mut lines: impl Iterator<Item = &'a Value>,
    ) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let [truth, trace] = ["truth.json", "trace.jsonl"].map(|name| dir.path().join(name));
        fs::write(&truth, report)?;
        let mut file = fs::File::create(&trace)?;
        lines.try_for_each(|line| writeln!(file, "{line}"))?;
        let ran = Command::new(program)
            .args(["workload", "compare"])
            .args([&truth, &trace])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(ran.status.success(), "{load}: `workload compare` failed: {}", ran.status);
        let tally: Value = serde_json::from_slice(&ran.stdout)?;
        let count = |key: &str| tally[key].as_u64().unwrap_or(0);
        self.compared.add(&count);
        let faults = count("wrong") + count("missed_in_complete") + count("others");
        if faults > 0 || !tally["evidence"]["none"].is_null() {
            let faults = tally["faults"].as_array().into_iter().flatten().take(MAX_DESCRIBED);
            self.wrong.extend(faults.map(|fault| format!("{load}: {fault}")));
            self.wrong.push(format!("{load}: {}", without_faults(tally.clone())));
        }
        Ok(())
    }

    fn print(&self, minutes: u64) {
        let Some(Sample { resident, fds }) = self.samples.last() else { return };
        println!(
            "{minutes} min: {} loads, {} failures, {} reported, {} lost, {} wrong; \
             {} KiB, {fds} fds, maximum error of times {} µs",
            self.loads,
            self.failures,
            self.incidents,
            self.lost,
            self.wrong.len(),
            resident / 1024,
            self.drift / 1000,
        );
    }

    /// Ends the tracer, and prints the result.
    fn end(mut self) -> Result<()> {
        kill(Pid::from_raw(self.tracer.id().cast_signed()), Signal::SIGINT)?;
        let summary = self.lines.iter().find(|line| line["type"] == "summary");
        let status = self.tracer.wait()?;
        ensure!(status.success(), "the tracer failed: {status}");
        let counted = summary.context("the tracer ended without a summary")?["failures"].as_u64();
        if counted != Some(self.failures) {
            self.wrong
                .push(format!("{} failures, but the summary counts {counted:?}", self.failures));
        }
        if self.drift > DRIFT {
            self.wrong.push(format!("the maximum error of times is {} ns", self.drift));
        }
        self.wrong.extend(growth("resident bytes", &self.samples, |it| it.resident, GROWTH));
        self.wrong.extend(growth("fds", &self.samples, |it| it.fds, (u64::MAX, 2)));
        for wrong in &self.wrong {
            println!("{wrong}");
        }
        println!("{}", self.compared);
        ensure!(self.wrong.is_empty(), "{} faults: see above", self.wrong.len());
        println!("sound: {} loads, {} failures, none wrong, no growth", self.loads, self.failures);
        Ok(())
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        // The tracer still runs only after an error, which is reported.
        let _ = self.tracer.kill();
        let _ = self.tracer.wait();
    }
}

/// The incident, if it contradicts the report of its load.
fn fault(known: &Value, incident: &Value) -> Option<String> {
    let pids = |holders: &Value| {
        let pids = holders.as_array().into_iter().flatten().map(|holder| holder["pid"].as_u64());
        let mut pids: Vec<_> = pids.collect();
        pids.sort_unstable();
        pids
    };
    let named = pids(&incident["holders"]);
    let kind = &incident["verdict"]["kind"];
    let right = if known["scenario"] == "ground-truth" {
        let same = |failed: &&Value| {
            failed["victim"] == incident["victim"]["pid"]
                && failed["ino"] == incident["file"]["ino"]
        };
        let failed = known["failed"].as_array()?.iter().find(same);
        failed.is_some_and(|failed| {
            let inherited = pids(&failed["inheritors"]);
            let sure = |one: &&Value| one["sure"] == true;
            let sure = failed["inheritors"].as_array().into_iter().flatten().filter(sure);
            let all_named = sure.map(|one| one["pid"].as_u64()).all(|pid| named.contains(&pid));
            named.iter().all(|pid| inherited.contains(pid))
                && (all_named || incident["complete"] != true)
        })
    } else if known["scenario"] == "storm" {
        incident["complete"] == true && *kind == "still-open" && named == [known["pid"].as_u64()]
    } else {
        incident["victim"]["tid"] == known["victim"]["tid"]
            && *kind == known["verdict"]
            && named == pids(&known["holders"])
            && incident["unheld"].as_array().map(Vec::len)
                == known["unheld"].as_array().map(Vec::len)
    };
    (!right).then(|| incident.to_string())
}

/// The tally without descriptions.
fn without_faults(mut tally: Value) -> Value {
    tally.as_object_mut().map(|tally| tally.remove("faults"));
    tally
}

/// The difference between an incident's time of day and its time since boot, in nanoseconds.
fn drift(incident: &Value) -> Result<i128> {
    let now = |clock| -> Result<i128> {
        let now = clock_gettime(clock)?;
        Ok(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
    };
    let offset = now(ClockId::CLOCK_REALTIME)? - now(ClockId::CLOCK_MONOTONIC)?;
    let time: jiff::Timestamp = incident["time"].as_str().unwrap_or_default().parse()?;
    let since = incident["time_ns"].as_i64().context("an incident without time_ns")?;
    Ok((time.as_nanosecond() - offset - i128::from(since)).abs())
}

/// Describes growth: the minimum of the last quarter exceeds the maximum of the first half by more than
/// `1/share` of it plus `rest`.
fn growth(
    what: &str,
    samples: &[Sample],
    of: impl Fn(&Sample) -> u64,
    (share, rest): (u64, u64),
) -> Option<String> {
    let before = samples[..samples.len() / 2].iter().map(&of).max()?;
    let after = samples[samples.len() * 3 / 4..].iter().map(&of).min()?;
    (after > before + before / share + rest).then(|| format!("{what}: from {before} to {after}"))
}

fn resident(proc: &Path) -> Result<u64> {
    let status = fs::read_to_string(proc.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{}/status: {status}", proc.display()))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn samples(resident: &[u64]) -> Vec<Sample> {
        resident.iter().map(|resident| Sample { resident: *resident, fds: 9 }).collect()
    }

    #[test]
    fn a_peak_is_no_growth() {
        let grown = |resident: &[u64]| growth("", &samples(resident), |it| it.resident, (10, 5));
        assert_eq!(grown(&[100, 120, 100, 300, 100, 100, 100, 100]), None, "a peak");
        assert_eq!(grown(&[100, 120, 100, 110, 137, 137, 137, 137]), None);
        assert!(grown(&[100, 120, 100, 110, 138, 138, 138, 138]).is_some());
        assert_eq!(grown(&[]), None);
    }

    #[test]
    fn false_incidents_are_detected() {
        let scene = json!({"scenario": "dup2", "victim": {"tid": 7}, "verdict": "leaked-fd",
            "holders": [{"pid": 3}], "unheld": []});
        let incident = |tid: u32, kind: &str, pid: u32| {
            json!({"victim": {"tid": tid}, "verdict": {"kind": kind}, "holders": [{"pid": pid}],
                "unheld": [], "complete": true})
        };
        assert_eq!(fault(&scene, &incident(7, "leaked-fd", 3)), None);
        for wrong in [(8, "leaked-fd", 3), (7, "still-open", 3), (7, "leaked-fd", 4)] {
            assert!(fault(&scene, &incident(wrong.0, wrong.1, wrong.2)).is_some(), "{wrong:?}");
        }
        let storm = json!({"scenario": "storm", "pid": 3});
        assert_eq!(fault(&storm, &incident(7, "still-open", 3)), None);
        assert!(fault(&storm, &incident(7, "still-open", 4)).is_some());
    }
}
