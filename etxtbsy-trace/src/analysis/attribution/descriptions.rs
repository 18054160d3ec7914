//! Open file descriptions, each with the holds of it.

use super::{
    hold_fact::{HoldFact, Standing},
    outcome::Suspect,
};
use crate::event::Reason;

/// A description, with the holds of it.
#[derive(Clone)]
pub(super) struct Description {
    pub(super) file: u64,
    pub(super) facts: Vec<HoldFact>,
}

impl Description {
    pub(super) fn standing(&self, enter: u64) -> Standing {
        let best = self.facts.iter().map(|fact| fact.standing).max().unwrap_or(Standing::Out);
        let opened_ns = self.facts.iter().map(|fact| fact.hold.opened.time_ns).max().unwrap_or(0);
        // A description that is open at both ends of the call was open throughout, whoever had it.
        if best >= Standing::After && (1..=enter).contains(&opened_ns) {
            return Standing::There;
        }
        best
    }

    /// Whether nobody saw when it was opened.
    pub(super) fn is_of_no_age(&self) -> bool {
        self.facts.iter().all(|fact| fact.hold.found != 0 && fact.hold.opened.time_ns == 0)
    }

    pub(super) fn is_dropping(&self) -> bool {
        self.facts.iter().all(|fact| fact.is_dropping)
    }

    /// Those who held it as surely as anybody.
    pub(super) fn believed(self) -> Vec<HoldFact> {
        let best = self.facts.iter().map(|fact| fact.standing).max();
        let is_sure = |fact: &HoldFact| {
            Some(fact.standing) == best
                // Nothing shows that it came later, and the description was open.
                || fact.standing == Standing::After
        };
        self.facts.into_iter().filter(is_sure).collect()
    }

    pub(super) fn suspect(&self, reason: Reason) -> Suspect {
        let fact = &self.facts[0];
        Suspect { tgid: fact.hold.tgid, seen: fact.seen, reason }
    }
}

/// The facts by description: an address is that of one description as long as it is open.
pub(super) fn describe<'a>(facts: impl Iterator<Item = &'a HoldFact>) -> Vec<Description> {
    let mut descriptions: Vec<Description> = Vec::new();
    for fact in facts {
        // Of a call that is opening one, the description is not known.
        let same = |one: &&mut Description| {
            one.file == fact.hold.file
                && (fact.hold.file != 0 || one.facts[0].hold.tgid == fact.hold.tgid)
        };
        match descriptions.iter_mut().find(same) {
            Some(one) => one.facts.push(fact.clone()),
            None => {
                descriptions.push(Description { file: fact.hold.file, facts: vec![fact.clone()] });
            }
        }
    }
    descriptions
}
