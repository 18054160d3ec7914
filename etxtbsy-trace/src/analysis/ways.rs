//! The ways to hold a file, one row each: of processes ([`WAYS`]) and of the kernel itself ([`PINS`]).
//!
//! A new way has a word in the event crate, a row here, and where it is seen: an eBPF program or a search
//! (`etxtbsy-trace-ebpf`), or a question (`session`). What follows from the row: who is blamed first, the
//! verdict, the words of view and text, the advice.

use crate::event::{Place, VerdictKind, Via};

/// A way in which a process holds a file.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Its word.
    pub via: Via,
    /// Its rank among the holders of one file: the lowest is blamed first. An opener comes before all.
    pub blame: u32,
    /// The verdict on a holder of this kind, whatever else it did; `None` where that decides.
    pub verdict: Option<VerdictKind>,
    /// Whether the view names the word: not where its tree shows it.
    pub is_named: bool,
}

const fn way(via: Via, blame: u32, verdict: Option<VerdictKind>, is_named: bool) -> Way {
    Way { via, blame, verdict, is_named }
}

/// All ways of processes.
pub const WAYS: [Way; 7] = [
    way(Via::Open, 3, None, false),
    way(Via::Fork, 1, None, false),
    way(Via::Dup, 2, None, true),
    way(Via::Passed, 2, Some(VerdictKind::PassedFd), true),
    way(Via::Mapping, 2, Some(VerdictKind::SharedMapping), true),
    way(Via::Running, 2, Some(VerdictKind::RunningExecutable), false),
    way(Via::Unknown, 3, None, true),
];

/// The row of a word; of a word of a later version, that of a way that is not known.
#[must_use]
pub fn of(via: Via) -> Way {
    let row = WAYS.iter().find(|way| way.via == via);
    row.copied().unwrap_or(way(Via::Unknown, 3, None, true))
}

/// A way in which the kernel keeps a file open without a process.
#[derive(Clone, Copy, Debug)]
pub struct PinWay {
    /// Its word.
    pub place: Place,
    /// The verdict.
    pub verdict: VerdictKind,
    /// For the view, after "kept"; a device or entry follows, if one is known.
    pub label: &'static str,
    /// For the summary, after the file; `{device}` stands for the device or entry.
    pub sentence: &'static str,
    /// The advice, where the place decides it and not the verdict.
    pub advice: Option<&'static str>,
}

/// All ways of the kernel.
pub const PINS: [PinWay; 7] = [
    PinWay {
        place: Place::SocketQueue,
        verdict: VerdictKind::PassedFd,
        label: "in the queue of a socket: sent, not received yet",
        sentence: "{file} is in the queue of a unix socket: its fd was sent and not received yet",
        advice: Some(
            "have the other end receive the fd and close it before the file is executed; or send one that was opened read-only",
        ),
    },
    PinWay {
        place: Place::LoopDevice,
        verdict: VerdictKind::LoopDevice,
        label: "by the loop device ",
        sentence: "{file} backs {device}, which writes to it",
        advice: None,
    },
    PinWay {
        place: Place::IoUring,
        verdict: VerdictKind::StillOpen,
        label: "by an io_uring",
        sentence: "an io_uring keeps {object}",
        advice: Some(
            "unregister the file from the io_uring, or wait for the completion of its requests, before the file is executed",
        ),
    },
    PinWay {
        place: Place::SwapFile,
        verdict: VerdictKind::SwapFile,
        label: "by swapping: it is an active swap file",
        sentence: "{file} is an active swap file",
        advice: None,
    },
    PinWay {
        place: Place::BinfmtMisc,
        verdict: VerdictKind::BinfmtMisc,
        label: "by the binfmt_misc entry ",
        sentence: "the binfmt_misc entry {device} keeps the file open (flag F)",
        advice: None,
    },
    // Its summary depends on the direction: `verdict::unheld`.
    PinWay {
        place: Place::FileSystem,
        verdict: VerdictKind::RefusedByFilesystem,
        label: "by its file system, ",
        sentence: "the file system itself ({device}) refused the call",
        advice: None,
    },
    UNKNOWN,
];

const UNKNOWN: PinWay = PinWay {
    place: Place::Unknown,
    verdict: VerdictKind::Unexplained,
    label: "by the kernel: a socket's queue, an io_uring, a device",
    sentence: "{file} was still open: something in the kernel kept it, such as the queue of a socket",
    advice: Some(
        "look for what the process that opened it gave the fd to: a socket, an io_uring, a device",
    ),
};

/// The row of a place; of a word of a later version, that of a place that is not known.
#[must_use]
pub fn of_place(place: Place) -> PinWay {
    PINS.into_iter().find(|pin| pin.place == place).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::{JsonSchema, schema_for};
    use serde_json::Value;

    use super::*;
    use crate::text::name;

    /// The words of an enum, as its schema lists them.
    fn words<T: JsonSchema>() -> BTreeSet<String> {
        fn find(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("const").and_then(Value::as_str).map(str::to_owned));
                    let list = map.get("enum").and_then(Value::as_array).into_iter().flatten();
                    found.extend(list.filter_map(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| find(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| find(value, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        find(&schema_for!(T).to_value(), &mut found);
        found
    }

    #[test]
    fn every_word_has_a_row() {
        assert_eq!(
            WAYS.map(|way| name(way.via)).into_iter().collect::<BTreeSet<_>>(),
            words::<Via>()
        );
        assert_eq!(
            PINS.map(|pin| name(pin.place)).into_iter().collect::<BTreeSet<_>>(),
            words::<Place>()
        );
    }
}
