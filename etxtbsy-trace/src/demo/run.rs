//! Running a demo: the command to trace, and what is to be had from it.

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
    os::fd::AsRawFd,
};

/// A demo, or the tour, that is to be run.
pub struct Demonstration {
    argv: Vec<OsString>,
    /// Where the workload writes what it counted. Not close-on-exec: the command gets it.
    reports: File,
    tally: Tally,
}

/// What this machine lacks for the demo of that name.
#[must_use]
pub fn missing(name: Option<&str>) -> Option<&'static str> {
    let is_there = |program| {
        env::var_os("PATH")
            .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
    };
    (name == Some("java") && !is_there("java"))
        .then_some("demo java is skipped: there is no java in PATH; install a JDK (11 or newer)")
}

impl Demonstration {
    /// Prepares the demo of that name, or the tour. `seconds` is for races and for each half of a
    /// comparison.
    pub fn new(name: Option<&str>, seconds: Option<u64>) -> Result<Self> {
        let this = env::current_exe().context("cannot find this program's own file")?;
        let reports = File::from(
            memfd_create(c"reports", MFdFlags::empty()).context("cannot make a file in memory")?,
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

    /// What counts its incidents.
    #[must_use]
    pub fn sink(&self) -> Sink {
        Sink::direct("the demo", self.tally.clone())
    }

    /// Says what it came to, once the command has ended and so has tracing.
    pub fn conclude(mut self, out: &mut dyn Write) -> Result<()> {
        let mut lines = String::new();
        self.reports.rewind()?;
        self.reports.read_to_string(&mut lines).context("cannot read what the demo counted")?;
        let reports = lines.lines().map(serde_json::from_str::<Report>);
        let reports = reports.collect::<Result<Vec<_>, _>>().context("what the demo counted")?;
        let counts = self.tally.take();
        out.write_all(conclude(&reports, &counts).as_bytes()).context("cannot say what it came to")
    }
}
