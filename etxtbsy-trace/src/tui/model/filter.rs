//! The filter of the list.

use crate::{
    analysis::near_miss::is_near_miss,
    event::{Incident, VerdictKind},
    text::name,
};
use nucleo_matcher::{
    Config, Matcher, Utf32Str,
    pattern::{CaseMatching, Normalization, Pattern},
};
use std::borrow::Cow;

/// The conditions for an incident to be shown.
pub struct Filter {
    text: String,
    /// The words of the text as fuzzy patterns.
    pattern: Pattern,
    matcher: Matcher,
    /// Only this verdict.
    pub verdict: Option<VerdictKind>,
    /// Only unexplained incidents.
    pub unexplained: bool,
    /// No near misses.
    pub no_near_misses: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            text: String::new(),
            pattern: Pattern::default(),
            matcher: Matcher::new(Config::DEFAULT),
            verdict: None,
            unexplained: false,
            no_near_misses: false,
        }
    }
}

impl Filter {
    /// The typed text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Sets the text: words that must all match, with the syntax of fzf (`'exact`, `^prefix`,
    /// `suffix$`, `!without`).
    pub fn set_text(&mut self, text: &str) {
        text.clone_into(&mut self.text);
        self.pattern.reparse(text, CaseMatching::Smart, Normalization::Smart);
    }

    /// Whether there is any condition for incidents.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.pattern.atoms.is_empty() || self.verdict.is_some() || self.unexplained
    }

    /// Whether an incident passes. Each word must match one of the texts.
    pub fn passes(&mut self, incident: &Incident) -> bool {
        if self.no_near_misses && is_near_miss(incident)
            || self.unexplained && incident.complete
            || self.verdict.is_some_and(|kind| kind != incident.verdict.kind)
        {
            return false;
        }
        if self.pattern.atoms.is_empty() {
            return true;
        }
        let (texts, matcher) = (names(incident), &mut self.matcher);
        let mut buffer = Vec::new();
        self.pattern.atoms.iter().all(|atom| {
            let mut fits =
                |text: &str| atom.score(Utf32Str::new(text, &mut buffer), matcher).is_some();
            if atom.negative {
                texts.iter().all(|text| fits(text))
            } else {
                texts.iter().any(|text| fits(text))
            }
        })
    }
}

/// The names in an incident: the verdict, the paths, and the processes as `comm[pid]`.
pub(super) fn names(incident: &Incident) -> Vec<Cow<'_, str>> {
    fn process(comm: Option<&str>, pid: u32) -> Cow<'_, str> {
        format!("{}[{pid}]", comm.unwrap_or_default()).into()
    }
    let victim = &incident.victim;
    let mut texts: Vec<Cow<str>> =
        vec![name(incident.verdict.kind).into(), process(victim.comm.as_deref(), victim.pid)];
    let mut known = vec![&incident.path, &incident.file.path, &victim.exe];
    for holder in &incident.holders {
        texts.push(process(holder.comm.as_deref(), holder.pid));
        known.push(&holder.exe);
        known.extend(holder.opened.iter().map(|opened| &opened.comm));
        known.extend(holder.forked.iter().map(|forked| &forked.comm));
        known.extend(holder.released.iter().map(|released| &released.exec));
    }
    texts.extend(known.into_iter().flatten().map(|text| text.as_str().into()));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn words_are_fuzzy_and_must_all_match() {
        let mut filter = Filter::default();
        for (text, passes) in [
            ("", true),
            ("  ", true),
            ("dmo", true),
            ("frkexec", true),
            ("demo worker", true),
            ("demo nowhere", false),
            ("/bin/true", true),
            ("'4310", true),
            ("'4399", false),
            ("Demo", false),
            ("!daemon", true),
            ("!demo", false),
            ("^worker", true),
            ("^orker", false),
        ] {
            filter.set_text(text);
            assert_eq!(filter.passes(&samples::race()), passes, "{text}");
            assert_eq!(filter.is_on(), !text.trim().is_empty());
        }
    }

    #[test]
    fn the_conditions_are_combined() {
        let all = [samples::race(), samples::leaked(), samples::several(), samples::unexplained()];
        let mut filter = Filter::default();
        let mut passing = |verdict, unexplained| {
            (filter.verdict, filter.unexplained) = (verdict, unexplained);
            all.each_ref().map(|incident| filter.passes(incident))
        };
        assert_eq!(passing(Some(VerdictKind::LeakedFd), false), [false, true, false, false]);
        assert_eq!(passing(None, true), [false, false, true, true]);
        assert_eq!(passing(Some(VerdictKind::ForkExecRace), true), [false, false, true, false]);
    }
}
