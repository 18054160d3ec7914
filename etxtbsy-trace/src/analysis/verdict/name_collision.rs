//! Two unrelated processes use the same file name.

use super::{Rule, is_opener};
use crate::analysis::verdict::{
    still_open::{StillOpen, place},
    words::{name, release, who},
};
use crate::event::{Direction, Holder, Incident, VerdictKind};

/// Processes that start unrelated processes: a common ancestor of this name does not count.
const STARTERS: [&str; 10] = [
    "systemd",
    "init",
    "sshd",
    "sshd-session",
    "cron",
    "crond",
    "containerd-shim",
    "conmon",
    "dockerd",
    "tini",
];

/// The process that has the file open for writing and the one that wants to run it have no common
/// parent within what is traced, or are in different cgroups.
///
/// > unpack[77] and run-tests[99] use the same file name but have no common parent: unpack[77]
/// > opened the file for writing and still had it open (fd 5); it closed the file 2.10 ms after the
/// > failure
pub(super) struct NameCollision<'a> {
    /// The roots of the traced trees; empty for the whole machine.
    pub(super) roots: &'a [u32],
}

impl Rule for NameCollision<'_> {
    const KIND: VerdictKind = VerdictKind::NameCollision;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        let culprit = StillOpen.culprit(incident)?;
        let unrelated = incident.direction == Direction::Exec
            && is_opener(culprit)
            && is_unrelated(incident, culprit, self.roots);
        unrelated.then_some(culprit)
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let victim = &incident.victim;
        let apart = match (&culprit.cgroup, &victim.cgroup) {
            (Some(one), Some(other)) if one != other => {
                format!("are in different cgroups ({one} and {other})")
            }
            _ => "have no common parent".to_owned(),
        };
        format!(
            "{} and {} use the same file name but {apart}: {} opened the file for writing and \
             still had it open ({}); {}",
            name(culprit),
            who(victim.comm.as_deref(), victim.pid),
            name(culprit),
            place(culprit),
            release("it", culprit)
        )
    }
}

/// Whether opener and victim are unrelated.
fn is_unrelated(incident: &Incident, opener: &Holder, roots: &[u32]) -> bool {
    let victim = &incident.victim;
    let starts = |pid: u32, comm: Option<&str>| {
        pid <= 1 || comm.is_some_and(|comm| STARTERS.contains(&comm))
    };
    let above_victim: Vec<(u32, Option<&str>)> = std::iter::once((victim.pid, None))
        .chain(victim.ppid.map(|ppid| (ppid, None)))
        .chain(victim.ancestors.iter().map(|it| (it.pid, it.comm.as_deref())))
        .collect();
    let above_opener: Vec<(u32, Option<&str>)> = std::iter::once((opener.pid, None))
        .chain(opener.ancestors.iter().map(|it| (it.pid, it.comm.as_deref())))
        .collect();
    let is_above = |pid: u32, chain: &[(u32, Option<&str>)]| chain.iter().any(|it| it.0 == pid);
    if is_above(opener.pid, &above_victim) || is_above(victim.pid, &above_opener) {
        return false;
    }
    if matches!((&opener.cgroup, &victim.cgroup), (Some(one), Some(other)) if one != other) {
        return true;
    }
    // What is above the root is not traced.
    let end = above_victim.iter().position(|it| roots.contains(&it.0));
    let within = &above_victim[..end.map_or(above_victim.len(), |end| end + 1)];
    let common = within.iter().any(|(pid, comm)| {
        let own = above_opener.iter().find(|it| it.0 == *pid);
        own.is_some_and(|own| !starts(*pid, own.1.or(*comm)))
    });
    let is_whole = |chain: &[(u32, Option<&str>)]| chain.last().is_some_and(|it| it.0 == 1);
    !common && (end.is_some() || is_whole(&above_victim)) && is_whole(&above_opener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analysis::verdict, event::Ancestor, output::samples};

    fn chain(processes: &[(u32, &str)]) -> Vec<Ancestor> {
        let one = |(pid, comm): &(u32, &str)| Ancestor {
            pid: *pid,
            comm: Some((*comm).to_owned()),
            comm_b64: None,
            exe: None,
            exe_b64: None,
        };
        processes.iter().map(one).collect()
    }

    /// An incident whose opener and victim have these ancestors.
    fn between(opener: &[(u32, &str)], victim: &[(u32, &str)]) -> Incident {
        let mut incident = samples::still_open();
        incident.holders[0].ancestors = chain(opener);
        incident.victim.ancestors = chain(victim);
        incident.victim.ppid = victim.first().map(|it| it.0);
        incident
    }

    #[test]
    fn a_common_parent_makes_no_collision() {
        use VerdictKind::{NameCollision, StillOpen};
        let (init, make, sshd) = ((1, "systemd"), (22, "make"), (9, "sshd"));
        let (a, b) = ((30, "bash"), (31, "bash"));
        let cases: [(&[_], &[_], &[u32], VerdictKind); 8] = [
            (&[a, make, init], &[b, make, init], &[], StillOpen),
            (&[a, init], &[b, init], &[], NameCollision),
            // Sessions of one server.
            (&[a, sshd, init], &[b, sshd, init], &[], NameCollision),
            // The victim is a child of the opener.
            (&[a, init], &[(4300, "demo"), init], &[], StillOpen),
            // The common parent is not traced, or is.
            (&[a, make, init], &[b, make, init], &[31], NameCollision),
            (&[a, make, init], &[b, make, init], &[22], StillOpen),
            // The chain of ancestors is not complete.
            (&[a], &[b, init], &[], StillOpen),
            (&[a, init], &[], &[], StillOpen),
        ];
        for (opener, victim, roots, kind) in cases {
            let incident = between(opener, victim);
            let verdict = verdict::of_traced(&incident, roots);
            assert_eq!(verdict.kind, kind, "{opener:?} {victim:?} {roots:?}");
        }
    }

    #[test]
    fn different_cgroups_make_a_collision() {
        let mut incident = between(&[(30, "bash"), (22, "make")], &[(31, "bash"), (22, "make")]);
        assert_eq!(verdict::of(&incident).kind, VerdictKind::StillOpen);
        incident.holders[0].cgroup = Some("/docker/1".to_owned());
        let verdict = verdict::of(&incident);
        assert_eq!(verdict.kind, VerdictKind::NameCollision);
        assert!(verdict.advice[0].contains("make the name unique"), "{}", verdict.advice[0]);
        // A victim that the opener started is related to it.
        incident.victim.ancestors.insert(0, chain(&[(4300, "demo")]).remove(0));
        assert_eq!(verdict::of(&incident).kind, VerdictKind::StillOpen);
    }
}
