//! The JSON lines of `check` (docs/json.md): one a fact, and what they come to.

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
    /// What it is called; no two have the same.
    pub name: String,
    /// Whether tracing has what it needs.
    pub status: Status,
    /// What tracing has of it.
    pub purpose: String,
    /// What was found.
    pub found: String,
    /// What stands in for it, and what is not told then; `null` unless it is degraded.
    pub instead: Option<String>,
    /// What to do.
    pub remedy: Option<String>,
}

/// As one line of text: an error, or a warning.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.told())?;
        self.remedy.iter().try_for_each(|remedy| write!(f, ": {remedy}"))
    }
}

impl Fact {
    /// What was found and what it means, without the remedy.
    #[must_use]
    pub fn told(&self) -> String {
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
    /// Mounts and namespaces: what a container may lack.
    Place,
    /// What this user may do.
    Privileges,
    /// What kernel it is.
    Kernel,
    /// What its eBPF can do.
    Features,
    /// The tracepoints, and tracing itself.
    Tracing,
}

/// Whether tracing has what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It has.
    Ok,
    /// Tracing works, and something is slower, or is not told.
    Degraded,
    /// Tracing does not work.
    Missing,
    /// It cannot be told, mostly for want of something that is missing.
    Unknown,
}

/// What the facts come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// Whether tracing will work: nothing is missing.
    pub works: bool,
    /// What to mend first: the first fact that is missing; `null` if none is.
    pub mend_first: Option<String>,
    /// How many facts are `ok`.
    pub ok: u32,
    /// How many are `degraded`.
    pub degraded: u32,
    /// How many are `missing`.
    pub missing: u32,
    /// How many are `unknown`.
    pub unknown: u32,
    /// This program's version.
    pub version: String,
}

impl Checked {
    /// How many facts have that status.
    pub fn count(&mut self, status: Status) -> &mut u32 {
        match status {
            Status::Ok => &mut self.ok,
            Status::Degraded => &mut self.degraded,
            Status::Missing => &mut self.missing,
            Status::Unknown => &mut self.unknown,
        }
    }
}
