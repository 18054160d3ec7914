//! The JSON lines of `check` (docs/json.md): one line a fact, and the result.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// A fact.
    Fact(Fact),
    /// The last line.
    Check(Checked),
}

/// A fact about this kernel and this user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    /// What it is about.
    pub theme: Theme,
    /// Its name, which no other fact has.
    pub name: String,
    /// Whether tracing has what it needs.
    pub status: Status,
    /// What tracing needs it for.
    pub purpose: String,
    /// What was found.
    pub found: String,
    /// What tracing uses instead, and what it then cannot report; `null` unless it is degraded.
    pub instead: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// One line of text, for an error or a warning.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.finding())?;
        self.remedy.iter().try_for_each(|remedy| write!(f, ": {remedy}"))
    }
}

impl Fact {
    /// What was found and what it is needed for, without the remedy.
    #[must_use]
    pub fn finding(&self) -> String {
        let Self { status, purpose, found, instead, .. } = self;
        match (status, instead) {
            (Status::Ok | Status::Unknown, _) => found.clone(),
            (_, None) => format!("{found} (needed {purpose})"),
            (_, Some(instead)) => format!("{found} (needed {purpose}; instead: {instead})"),
        }
    }
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Theme {
    /// Mounts and namespaces, which a container may lack.
    Place,
    /// What this user may do.
    Privileges,
    /// The kernel.
    Kernel,
    /// What the kernel's eBPF can do.
    Features,
    /// The tracepoints, and tracing itself.
    Tracing,
}

/// Whether tracing has what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Tracing has what it needs.
    Ok,
    /// Tracing works, but something is slower or not reported.
    Degraded,
    /// Tracing does not work.
    Missing,
    /// It could not be checked, usually because something else is missing.
    Unknown,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// Whether tracing will work: nothing is missing.
    pub works: bool,
    /// What to fix first: the first fact that is missing; `null` if none is.
    pub mend_first: Option<String>,
    /// The number of facts that are `ok`.
    pub ok: u32,
    /// The number that are `degraded`.
    pub degraded: u32,
    /// The number that are `missing`.
    pub missing: u32,
    /// The number that are `unknown`.
    pub unknown: u32,
    /// This program's version.
    pub version: String,
}

impl Checked {
    /// The number of facts with that status.
    pub fn count(&mut self, status: Status) -> &mut u32 {
        match status {
            Status::Ok => &mut self.ok,
            Status::Degraded => &mut self.degraded,
            Status::Missing => &mut self.missing,
            Status::Unknown => &mut self.unknown,
        }
    }
}
