//! Where in their code the opener and the forker of a group were.

use crate::{
    analysis::{frames, verdict},
    event::{Frame, Incident},
    text::escape,
};

/// The columns of the name of a function or a file.
const COLUMNS: usize = 100;

/// The user's own frames of the first incident that has any, as one line each.
#[derive(Clone, Debug, Default)]
pub struct Places {
    opened: Option<String>,
    forked: Option<String>,
}

impl Places {
    /// Takes the places of an incident, where none is known yet.
    pub fn add(&mut self, incident: &Incident) {
        let culprit = verdict::culprit(incident);
        let opened = match culprit {
            Some(holder) => holder.opened.as_ref(),
            None => incident.unheld.first().and_then(|unheld| unheld.opened.as_ref()),
        };
        let forked = culprit.and_then(|holder| holder.forked.as_ref());
        if self.opened.is_none() {
            self.opened = opened.and_then(|opened| calls(opened.stack.as_deref()));
        }
        if self.forked.is_none() {
            self.forked = forked.and_then(|forked| calls(forked.stack.as_deref()));
        }
    }

    /// A label and a line for each that is known.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, String)> {
        let each = [("opened at", &self.opened), ("forked at", &self.forked)];
        each.into_iter().filter_map(|(label, place)| Some((label, place.clone()?)))
    }
}

fn calls(stack: Option<&[Frame]>) -> Option<String> {
    frames::calls(stack, &|raw| escape::short(raw, COLUMNS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn the_first_incident_with_a_stack_gives_the_places() {
        let mut places = Places::default();
        places.add(&samples::race());
        assert_eq!(places.lines().count(), 0);
        let mut other = samples::with_stacks();
        other.holders[0].forked.as_mut().unwrap().stack = None;
        places.add(&other);
        other.holders[0].opened.as_mut().unwrap().stack.as_mut().unwrap()[4].line = Some(1);
        places.add(&other);
        places.add(&samples::with_stacks());
        let lines: Vec<(&str, String)> = places.lines().collect();
        let opened =
            "demo::build::write_script (src/build.rs:42), called by demo::main (src/main.rs:7)";
        let forked = "spawn_tests in libspawn.so.2, called by demo::run::all (src/run.rs:17)";
        assert_eq!(lines, [("opened at", opened.to_owned()), ("forked at", forked.to_owned())]);
    }

    #[test]
    fn long_and_hostile_names_are_one_short_line() {
        let mut incident = samples::with_stacks();
        let opened = incident.holders[0].opened.as_mut().unwrap();
        for frame in opened.stack.as_mut().unwrap() {
            frame.function = Some("\x1b[2J\n::error::".repeat(70_000));
        }
        let mut places = Places::default();
        places.add(&incident);
        let (_, line) = places.lines().next().unwrap();
        assert!(line.len() < 1_000 && samples::harmless(&line) && !line.contains('\n'), "{line}");
    }
}
