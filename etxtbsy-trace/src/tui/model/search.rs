//! The search: a text that is compared with all that the view shows of an incident.

use super::{filter::names, near::Near, words};
use crate::{
    analysis::{frames, ways},
    event::{Context, Frame, Holder, Incident},
    text::{name, time},
};
use std::borrow::Cow;

/// The text that is searched for.
#[derive(Debug, Default)]
pub struct Search {
    text: String,
    lower: String,
}

impl Search {
    /// The typed text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same in lower case; the search ignores case.
    #[must_use]
    pub fn lower(&self) -> &str {
        &self.lower
    }

    /// Whether nothing is searched for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Sets the text.
    pub fn set(&mut self, text: &str) {
        text.clone_into(&mut self.text);
        self.lower = text.to_lowercase();
    }

    /// Whether a text contains the wanted one.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        !self.is_empty() && contains(text, &self.lower)
    }

    /// Whether one of the texts of an incident or a near miss contains the wanted one.
    #[must_use]
    pub fn finds(&self, incident: &Incident, near: Option<Near>) -> bool {
        !self.is_empty()
            && (names(incident).iter().any(|text| self.is_in(text))
                || texts(incident, near).iter().any(|text| self.is_in(text)))
    }
}

/// Whether a text contains `lower`, ignoring case. Without allocation if possible: a key press compares
/// all incidents in memory.
fn contains(text: &str, lower: &str) -> bool {
    if !lower.is_ascii() {
        return text.to_lowercase().contains(lower);
    }
    let (mut text, lower) = (text.as_bytes(), lower.as_bytes());
    let Some((first, rest)) = lower.split_first() else { return true };
    while let Some(at) = text.iter().position(|byte| byte.eq_ignore_ascii_case(first)) {
        text = &text[at + 1..];
        if text.get(..rest.len()).is_some_and(|text| text.eq_ignore_ascii_case(rest)) {
            return true;
        }
    }
    false
}

/// What the panes show besides the names.
fn texts(incident: &Incident, near: Option<Near>) -> Vec<Cow<'_, str>> {
    let victim = &incident.victim;
    let mut texts: Vec<Cow<str>> = vec![
        words::title(incident, near).into(),
        time::clock(&incident.time).unwrap_or_default().into(),
        incident.verdict.summary.as_str().into(),
        match near {
            Some(near) => words::missed(near).into(),
            None => words::wait(incident).into(),
        },
        format!(
            "{}: {}",
            incident.syscall,
            if near.is_some() { "succeeded" } else { "Text file busy" }
        )
        .into(),
        format!("thread {}", victim.tid).into(),
    ];
    texts.extend(incident.verdict.advice.iter().map(|advice| advice.as_str().into()));
    texts.extend(victim.cgroup.iter().map(|cgroup| cgroup.as_str().into()));
    texts.extend(work(victim.context.as_ref()));
    texts.extend(places(victim.stack.as_deref()));
    for holder in &incident.holders {
        of_holder(incident, holder, &mut texts);
    }
    texts
}

/// Test, job and container of a process.
fn work(context: Option<&Context>) -> impl Iterator<Item = Cow<'_, str>> {
    let facts = context.map(|context| context.beside(None)).unwrap_or_default();
    facts.into_iter().map(|(name, value)| format!("{name} {value}").into())
}

/// The user's own frames of a stack.
fn places(stack: Option<&[Frame]>) -> impl Iterator<Item = Cow<'_, str>> {
    let brief = |frame: &Frame| frames::brief(frame, &ToOwned::to_owned);
    frames::own(stack).into_iter().map(move |frame| brief(frame).into())
}

/// Adds what the panes show of a holder besides the names.
fn of_holder<'a>(incident: &Incident, holder: &'a Holder, texts: &mut Vec<Cow<'a, str>>) {
    let offset = |time_ns: u64| words::offset(incident, time_ns);
    texts.push(name(holder.state).into());
    if ways::of(holder.via).is_named {
        texts.push(format!("via {}", name(holder.via)).into());
    }
    for fd in &holder.fds {
        texts.push(format!("fd {}: {}", fd.fd, fd.flags.join("|")).into());
    }
    texts.extend(holder.cgroup.iter().map(|cgroup| cgroup.as_str().into()));
    texts.extend(work(holder.context.as_ref()));
    if let Some(opened) = &holder.opened {
        let at = offset(opened.time_ns);
        texts.push(format!("thread {} ", opened.tid).into());
        texts.push(format!("{at} opened by thread {}", opened.tid).into());
        texts.extend(opened.path.iter().map(|path| path.as_str().into()));
        texts.extend(places(opened.stack.as_deref()));
    }
    if let Some(forked) = &holder.forked {
        texts.push(format!("{} forked", offset(forked.time_ns)).into());
        texts.push(format!("thread {} ", forked.tid).into());
        texts.extend(places(forked.stack.as_deref()));
    }
    if let Some(released) = &holder.released {
        texts.push(words::release(released).into());
    }
    for ancestor in &holder.ancestors {
        let comm = ancestor.comm.as_deref().unwrap_or_default();
        texts.push(format!("{comm}[{}]", ancestor.pid).into());
        texts.extend(ancestor.exe.iter().map(|exe| exe.as_str().into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn finds(wanted: &str) -> bool {
        let mut search = Search::default();
        search.set(wanted);
        search.finds(&samples::race(), None)
    }

    #[test]
    fn case_does_not_matter() {
        for (text, lower, found) in [
            ("aAab", "aab", true),
            ("aAa", "aab", false),
            ("+18 µS", "µs", true),
            ("Größe", "größe", true),
            ("µAB", "ab", true),
            ("", "a", false),
        ] {
            assert_eq!(contains(text, lower), found, "{text} {lower}");
        }
    }

    #[test]
    fn tests_and_jobs_are_found() {
        let mut incident = samples::race();
        let test = Some("tests/test_tool.py::test_runs".to_owned());
        incident.victim.context = Some(Context { test, ..Context::default() });
        let mut search = Search::default();
        search.set("test tests/test_tool");
        assert!(search.finds(&incident, None));
    }

    #[test]
    fn all_that_the_panes_show_is_found_without_case() {
        for shown in [
            "FORK-EXEC-3",
            "demo[4310]",
            "#1",
            "14:03:07",
            "Text file busy",
            "released after 180",
            "o_cloexec",
            "exec-closing",
            "thread 4307",
            "-455 µs opened",
            "+180 µs close-on-exec",
            "write the file in a child",
            "had not released",
        ] {
            assert!(finds(shown), "{shown}");
        }
        for hidden in ["", "dmo", "nowhere"] {
            assert!(!finds(hidden), "{hidden}");
        }
    }
}
