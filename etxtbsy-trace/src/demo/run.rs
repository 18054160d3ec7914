//! Runs a demo: the command to trace, and the comparison at the end.

use super::catalogue;
use super::report::{Report, conclude};
use super::tally::Tally;
use crate::session::Sink;
use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{Read, Seek, Write},
    os::{fd::AsRawFd, unix::fs::FileExt as _},
};

/// A demo, or the tour, ready to run.
pub struct Demonstration {
    argv: Vec<OsString>,
    /// The file for the workload's report. Not close-on-exec, because the command inherits it.
    reports: File,
    tally: Tally,
}

/// Why the demo of that name cannot run on this machine, if so.
#[must_use]
pub fn missing(name: Option<&str>) -> Option<&'static str> {
    let is_in_path = |program| {
        env::var_os("PATH")
            .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
    };
    (name == Some("java") && !is_in_path("java"))
        .then_some("demo java is skipped: no java in PATH; install a JDK (11 or newer)")
}

impl Demonstration {
    /// Prepares the demo of that name, or the tour. `seconds` is the duration of a race, and of each
    /// side of a comparison.
    pub fn new(name: Option<&str>, seconds: Option<u64>) -> Result<Self> {
        let this = env::current_exe().context("cannot find the executable of this program")?;
        let reports = File::from(
            memfd_create(c"reports", MFdFlags::empty())
                .context("cannot create a file in memory for the reports")?,
        );
        let path = format!("/proc/self/fd/{}", reports.as_raw_fd());
        let words = ["workload".into(), "--report".into(), path.into()]
            .into_iter()
            .chain(catalogue::workload(name, seconds).into_iter().map(OsString::from));
        let argv = [this.into_os_string()].into_iter().chain(words).collect();
        Ok(Self { argv, reports, tally: Tally::default() })
    }

    /// The command to trace.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// A sink that counts the incidents.
    #[must_use]
    pub fn sink(&self) -> Sink {
        Sink::direct("the demo", self.tally.clone())
    }

    /// What the demo of that name shows, or the part of the tour that runs.
    pub fn caption(&self, name: Option<&str>) -> Result<Box<dyn Fn() -> String + Send>> {
        let captions = catalogue::captions(name);
        let reports = self.reports.try_clone().context("cannot duplicate an fd")?;
        Ok(Box::new(move || {
            // Each part reports in one line when it ends.
            let mut bytes = vec![0; reports.metadata().map_or(0, |it| it.len() as usize)];
            let read = reports.read_at(&mut bytes, 0).unwrap_or(0);
            let ended = bytes[..read].split_inclusive(|byte| *byte == b'\n').count();
            captions.get(ended).or(captions.last()).cloned().unwrap_or_default()
        }))
    }

    /// Writes the conclusion. Call this after tracing has ended.
    pub fn conclude(mut self, out: &mut dyn Write) -> Result<()> {
        let mut lines = String::new();
        self.reports.rewind()?;
        self.reports.read_to_string(&mut lines).context("cannot read the demo's report")?;
        let reports = lines.lines().map(serde_json::from_str::<Report>);
        let reports =
            reports.collect::<Result<Vec<_>, _>>().context("cannot parse the demo's report")?;
        let counts = self.tally.take();
        out.write_all(conclude(&reports, &counts).as_bytes())
            .context("cannot write the conclusion of the demo")
    }
}
