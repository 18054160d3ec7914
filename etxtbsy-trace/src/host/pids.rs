//! Pids in two namespaces: the machine's first, whose pids the kernel's records carry, and the
//! tracer's, which /proc and every system call speak of. In a container they differ.

use std::collections::HashMap;

use etxtbsy_trace_common::PidPair;

/// The processes that can be seen from here, by both of their pids, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Pids(Option<Both>);

/// The pids of each namespace by those of the other.
#[derive(Clone, Debug)]
struct Both {
    local: HashMap<u32, u32>,
    machine: HashMap<u32, u32>,
}

impl Pids {
    /// Where the tracer's namespace is the machine's first: every pid is its own.
    #[must_use]
    pub fn same() -> Self {
        Self(None)
    }

    /// Of the processes that the tracer's namespace has.
    #[must_use]
    pub fn of(pairs: &[PidPair]) -> Self {
        Self(Some(Both {
            local: pairs.iter().map(|pair| (pair.machine, pair.local)).collect(),
            machine: pairs.iter().map(|pair| (pair.local, pair.machine)).collect(),
        }))
    }

    /// What a process is called here; `None` if it cannot be seen from here, or has ended.
    #[must_use]
    pub fn local(&self, machine: u32) -> Option<u32> {
        self.0.as_ref().map_or(Some(machine), |both| both.local.get(&machine).copied())
    }

    /// What a process is called by the machine; `None` if there is none here of that name.
    #[must_use]
    pub fn machine(&self, local: u32) -> Option<u32> {
        self.0.as_ref().map_or(Some(local), |both| both.machine.get(&local).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_means_nothing_in_the_other_namespace() {
        let pairs = [PidPair { local: 1, machine: 700 }, PidPair { local: 700, machine: 701 }];
        let pids = Pids::of(&pairs);
        assert_eq!([pids.local(700), pids.local(701), pids.local(1)], [Some(1), Some(700), None]);
        assert_eq!(
            [pids.machine(1), pids.machine(700), pids.machine(2)],
            [Some(700), Some(701), None]
        );
        assert_eq!((Pids::same().local(7), Pids::same().machine(7)), (Some(7), Some(7)));
    }
}
