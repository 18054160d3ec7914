//! What the incidents of a group have in common, as a sentence, and what to do about it.

use super::look::Tone;
use crate::{
    analysis::{
        group::{Cause, Member, Tally},
        verdict::GroupAdvice,
        wait::Wait,
    },
    event::{Direction, Incident, VerdictKind},
    text::name,
};

/// The incidents of a group, and the advice that follows from the one with the longest wait.
#[derive(Clone, Debug)]
pub(super) struct Advised {
    tally: Tally,
    longest: Option<Wait>,
    /// The advice.
    pub(super) advice: GroupAdvice,
}

impl Member for Advised {
    type Origin = ();

    fn new(first: &Incident, (): ()) -> Self {
        let advice = GroupAdvice::default();
        Self { tally: Tally::new(first.id), longest: None, advice }
    }

    fn add(&mut self, incident: &Incident, (): ()) {
        self.tally.add(incident);
        let wait = Wait::of(incident);
        if self.longest.is_none_or(|longest| wait > longest) {
            self.longest = Some(wait);
            self.advice = GroupAdvice::of(incident);
        }
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn order(&self) -> (u64, u64) {
        self.tally.ids
    }
}

/// The sentence. `paint` formats each name that other processes chose: it quotes the name, shortens it
/// to that many columns, and gives it its colour.
pub(crate) fn sentence(
    cause: &Cause,
    tally: &Tally,
    paint: &dyn Fn(Tone, &str, usize) -> String,
) -> String {
    let shown = |tone, name: Option<String>, columns: usize| {
        paint(tone, name.as_deref().unwrap_or("(unknown)"), columns)
    };
    let file = shown(Tone::Strong, tally.file.text(), 60);
    let victim = shown(Tone::Bad, tally.victim.text(), 32);
    let call = name(cause.direction);
    let mut facts = Vec::new();
    if let Some(opener) = &cause.opener {
        facts.push(format!("opened by {}", paint(Tone::Plain, opener, 32)));
    }
    if let Some(holder) = &cause.holder {
        let verb = match (cause.verdict, cause.direction) {
            (VerdictKind::RefusedByFilesystem, _) => "refused",
            (VerdictKind::SwapFile | VerdictKind::BinfmtMisc, _)
            | (_, Direction::Exec | Direction::Other(_)) => "held",
            (_, Direction::Write) => "run",
        };
        facts.push(format!("{verb} by {}", paint(Tone::Holder, holder, 48)));
    }
    if let Some(exec) = tally.exec.text() {
        facts.push(format!("released by exec of {}", paint(Tone::Good, &exec, 40)));
    }
    if facts.is_empty() {
        facts.push("holder not found".to_owned());
    }
    format!("{victim} could not {call} {file}: {}", facts.join(", "))
}
