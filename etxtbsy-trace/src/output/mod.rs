//! Where the lines go: as JSON for programs ([`json`]), as text for people ([`text`]).

pub mod check;
pub mod escape;
pub mod group;
mod incident;
pub mod json;
mod look;
pub mod queue;
#[cfg(test)]
pub(crate) mod samples;
mod summary;
pub mod text;
pub mod time;
pub mod weight;

use crate::lines::{Incident, Line};
use serde::Serialize;
use std::io;

/// Something that takes the lines, one after the other, in the order of [`Line`]'s variants.
pub trait Output: Send {
    /// Takes one line; what it makes of it has left the program when this returns.
    fn line(&mut self, line: &Line) -> io::Result<()>;

    /// A call has just failed; `incident` makes what is known of it so far, with an id of 0. Its
    /// line comes when its holders have dropped the file, or after a second. Most outputs wait for that.
    fn pending(&mut self, _incident: &dyn Fn() -> Incident) {}

    /// The command to trace could not be started; an error says so after the last line.
    fn command_failed(&mut self) {}

    /// Another output has failed; the words say which, and why.
    fn failed(&mut self, _words: &str) {}
}

/// The name an enum of the lines has in JSON, such as `fork-exec-race`; harmless, whoever wrote it.
#[must_use]
pub fn name<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => escape::text(&name),
        _ => "?".to_owned(),
    }
}

/// The pids of a process in the tracer's namespace and in its own, where those are others.
pub(crate) fn other_pids(
    pid: u32,
    local: Option<u32>,
    own: Option<u32>,
) -> impl Iterator<Item = String> {
    let local = local.filter(|local| *local != pid);
    let own = own.filter(|own| *own != pid && Some(*own) != local);
    let local = local.map(|local| format!("pid {local} here"));
    local.into_iter().chain(own.map(|own| format!("pid {own} in its namespace")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_other_namespaces_are_named_where_they_differ() {
        let named = |pid, local, own| other_pids(pid, local, own).collect::<Vec<_>>();
        assert!(named(9, Some(9), Some(9)).is_empty());
        assert!(named(9, None, Some(9)).is_empty());
        assert_eq!(named(9, Some(9), Some(1)), ["pid 1 in its namespace"]);
        assert_eq!(named(9, Some(4), Some(4)), ["pid 4 here"]);
        assert_eq!(named(9, Some(4), Some(1)), ["pid 4 here", "pid 1 in its namespace"]);
    }
}
