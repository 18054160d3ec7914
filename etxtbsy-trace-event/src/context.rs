//! The work that a process belongs to: a test, a job of CI, a container.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which test, job, container and pod a process belongs to: from a short list of environment variables, of the process
/// or else of its nearest ancestor that has one, and from their cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// The test, as its runner names it.
    pub test: Option<String>,
    /// The job of the CI service.
    pub job: Option<String>,
    /// The container's id; its name where the runtime uses names.
    pub container: Option<String>,
    /// The uid of the Kubernetes pod.
    pub pod: Option<String>,
}

impl Context {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each().all(|(_, value)| value.is_none())
    }

    /// Name and value of each that is known, and not the same in `other`.
    #[must_use]
    pub fn beside(&self, other: Option<&Self>) -> Vec<(&'static str, &str)> {
        let others: Vec<_> = other.into_iter().flat_map(Self::each).collect();
        let own = self.each().filter(|fact| !others.contains(fact));
        own.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Name and value of each.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        let Self { test, job, container, pod } = self;
        [("test", test), ("job", job), ("container", container), ("pod", pod)]
            .into_iter()
            .map(|(name, value)| (name, value.as_deref()))
    }
}
