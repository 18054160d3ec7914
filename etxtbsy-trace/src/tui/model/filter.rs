//! Which incidents are shown, and which of them a search finds.

use crate::{
    event::{Incident, VerdictKind},
    text::name,
};
use nucleo_matcher::{
    Config, Matcher, Utf32Str,
    pattern::{CaseMatching, Normalization, Pattern},
};
use std::borrow::Cow;

/// What an incident must be like to be shown.
pub struct Filter {
    text: String,
    /// The words of the text.
    pattern: Pattern,
    matcher: Matcher,
    /// Only this verdict.
    pub verdict: Option<VerdictKind>,
    /// Only those that are not explained.
    pub unexplained: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            text: String::new(),
            pattern: Pattern::default(),
            matcher: Matcher::new(Config::DEFAULT),
            verdict: None,
            unexplained: false,
        }
    }
}

impl Filter {
    /// What is typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes what is typed: words that must all be there, with the signs of fzf (`'exact`,
    /// `^begins`, `ends$`, `!without`).
    pub fn type_in(&mut self, text: &str) {
        text.clone_into(&mut self.text);
        self.pattern.reparse(text, CaseMatching::Smart, Normalization::Smart);
    }

    /// Whether it leaves anything out.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.pattern.atoms.is_empty() || self.verdict.is_some() || self.unexplained
    }

    /// Whether an incident passes. A word is looked for in each text by itself.
    pub fn passes(&mut self, incident: &Incident) -> bool {
        if self.unexplained && incident.complete
            || self.verdict.is_some_and(|kind| kind != incident.verdict.kind)
        {
            return false;
        }
        if self.pattern.atoms.is_empty() {
            return true;
        }
        let (texts, matcher) = (texts(incident), &mut self.matcher);
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

/// Whether an incident has `wanted` in one of its texts, in whatever case.
#[must_use]
pub fn contains(incident: &Incident, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    texts(incident).iter().any(|text| text.to_lowercase().contains(&wanted))
}

/// What a user may look for: the verdict, the paths, and the processes as `comm[pid]`.
fn texts(incident: &Incident) -> Vec<Cow<'_, str>> {
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
    fn words_are_fuzzy_and_must_all_be_there() {
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
            filter.type_in(text);
            assert_eq!(filter.passes(&samples::race()), passes, "{text}");
            assert_eq!(filter.is_on(), !text.trim().is_empty());
        }
    }

    #[test]
    fn verdict_and_explained_narrow_each_other() {
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

    #[test]
    fn a_search_is_plain() {
        let race = samples::race();
        assert!(contains(&race, "FORK-EXEC-3") && contains(&race, "demo[4310]"));
        assert!(!contains(&race, "dmo"));
    }
}
