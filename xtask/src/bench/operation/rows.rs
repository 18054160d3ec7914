//! All operations, in the order of the tables.

use super::{
    Kind, Operation,
    child::{Child, Fds, Files, Way},
    failing_exec::{FailingExec, HeldBy},
    near_miss::NearMiss,
    system_call::SystemCall,
};

impl Operation {
    /// A call that no program of the tracer sees.
    pub(in crate::bench) const NULL_CALL: Self = Self {
        word: "null-call",
        name: "a call that is not traced (getppid)",
        kind: Kind::SystemCall(SystemCall::NotTraced),
    };

    /// How long a file is open for writing.
    pub(in crate::bench) const WINDOW: Self =
        Self { word: "window", name: "how long a file is open for writing", kind: Kind::Window };

    /// The basic operations, which are also measured beside other tools.
    pub(in crate::bench) const BASIC: [Self; 6] = [
        Self::NULL_CALL,
        Self {
            word: "open-for-reading",
            name: "open and close, for reading",
            kind: Kind::SystemCall(SystemCall::OpenForReading),
        },
        Self {
            word: "open-for-writing",
            name: "open and close, for writing",
            kind: Kind::SystemCall(SystemCall::OpenForWriting),
        },
        spawn("spawn-from-small", "fork, exec, wait; 10 fds", 10, 0),
        spawn("spawn-from-writer", "fork, exec, wait; 10 fds, 2 for writing", 10, 2),
        spawn("spawn-from-server", "fork, exec, wait; 1000 fds", 1000, 0),
    ];

    /// Children with inherited write fds, which an exec does not close.
    const INHERITED: [Self; 10] = [
        inherit("exec-10-one", "fork, exec, wait; 10 write fds, 1 file", EXEC, 10, ONE),
        inherit("exec-10-many", "fork, exec, wait; 10 write fds, 10 files", EXEC, 10, MANY),
        inherit("exec-100-one", "fork, exec, wait; 100 write fds, 1 file", EXEC, 100, ONE),
        inherit("exec-100-many", "fork, exec, wait; 100 write fds, 100 files", EXEC, 100, MANY),
        inherit("exec-1000-one", "fork, exec, wait; 1000 write fds, 1 file", EXEC, 1000, ONE),
        inherit("exec-1000-many", "fork, exec, wait; 1000 write fds, 1000 files", EXEC, 1000, MANY),
        inherit("exit-1000-one", "fork, exit, wait; 1000 write fds, 1 file", EXIT, 1000, ONE),
        inherit("exit-1000-many", "fork, exit, wait; 1000 write fds, 1000 files", EXIT, 1000, MANY),
        inherit("spawn-1000-one", "posix_spawn, wait; 1000 write fds, 1 file", SPAWN, 1000, ONE),
        inherit(
            "spawn-1000-many",
            "posix_spawn, wait; 1000 write fds, 1000 files",
            SPAWN,
            1000,
            MANY,
        ),
    ];

    const NEAR_MISSES: [Self; 2] = [
        Self {
            word: "exec-without-near-miss",
            name: "fork, open, close, fork, exec; no near miss",
            kind: Kind::NearMiss(NearMiss::No),
        },
        Self {
            word: "exec-with-near-miss",
            name: "open, fork, close, fork, exec; a near miss",
            kind: Kind::NearMiss(NearMiss::Yes),
        },
    ];

    const SEARCHES: [Self; 2] = [
        failing("search", "an exec that fails with ETXTBSY, with a search", HeldBy::Message, 0),
        failing("search-3000", "the same, beside 3000 idle processes", HeldBy::Message, 3000),
    ];

    const FAILING: [Self; 2] = [
        failing("failing-exec", "an exec that fails with ETXTBSY", HeldBy::Fd, 0),
        failing("failing-exec-2000", "the same, beside 2000 idle processes", HeldBy::Fd, 2000),
    ];

    /// The operations whose CPU time is measured without and with tracing.
    pub(in crate::bench) fn paired() -> Vec<Self> {
        [&Self::BASIC[..], &Self::INHERITED, &Self::NEAR_MISSES, &Self::SEARCHES].concat()
    }

    /// The operations in which the programs' time is measured.
    pub(in crate::bench) fn observed() -> Vec<Self> {
        [&Self::BASIC[..], &Self::INHERITED, &Self::NEAR_MISSES, &Self::FAILING, &Self::SEARCHES]
            .concat()
    }

    pub(super) fn all() -> Vec<Self> {
        [&Self::observed()[..], &[Self::WINDOW]].concat()
    }
}

const EXEC: Way = Way::ForkExec;
const EXIT: Way = Way::ForkExit;
const SPAWN: Way = Way::PosixSpawn;
const ONE: Files = Files::One;
const MANY: Files = Files::Many;

const fn spawn(word: &'static str, name: &'static str, all: i32, writers: usize) -> Operation {
    let fds = Fds::ClosedByExec { all, writers };
    Operation { word, name, kind: Kind::Child(Child { way: EXEC, fds }) }
}

const fn inherit(
    word: &'static str,
    name: &'static str,
    way: Way,
    writers: usize,
    of: Files,
) -> Operation {
    let fds = Fds::Inherited { writers, of };
    Operation { word, name, kind: Kind::Child(Child { way, fds }) }
}

const fn failing(
    word: &'static str,
    name: &'static str,
    held_by: HeldBy,
    idle: usize,
) -> Operation {
    Operation { word, name, kind: Kind::FailingExec(FailingExec { held_by, idle }) }
}
