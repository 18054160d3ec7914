//! What this kernel's eBPF can do: found by trying, never by version.

use anyhow::{Result, anyhow};
use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};

use super::{Fact, Finding, Machine};
use crate::tracer::features;

/// Something that the programs use.
struct Feature {
    name: &'static str,
    purpose: &'static str,
    /// Whether the kernel has it.
    probe: fn(&Machine) -> Result<bool>,
    /// What stands in for it, if anything does.
    instead: Option<&'static str>,
    /// The version that brought it, for the remedy.
    since: &'static str,
}

const FEATURES: [Feature; 8] = [
    Feature {
        name: "tracepoint programs",
        purpose: "to see system calls",
        probe: |_| Ok(is_program_supported(ProgramType::TracePoint)?),
        instead: None,
        since: "4.7",
    },
    Feature {
        name: "raw tracepoint programs",
        purpose: "to see forks, execs and exits",
        probe: |_| Ok(is_program_supported(ProgramType::RawTracePoint)?),
        instead: None,
        since: "4.17",
    },
    Feature {
        name: "task_file iterator",
        purpose: "to note the files that are open when tracing begins",
        probe: |machine| {
            let btf = machine.btf().map_err(|error| anyhow!("{error}"))?;
            Ok(btf.has_iterator("task_file"))
        },
        instead: None,
        since: "5.8",
    },
    Feature {
        name: "late map memory",
        purpose: "to take memory for the maps' elements only as they come",
        probe: |machine| {
            let btf = machine.btf().map_err(|error| anyhow!("{error}"))?;
            Ok(features::maps_allocate_late(btf))
        },
        instead: Some("all of it is taken at the start"),
        since: "6.1",
    },
    Feature {
        name: "ring buffer",
        purpose: "to tell what happens, in order",
        probe: |_| Ok(is_map_supported(MapType::RingBuf)?),
        instead: None,
        since: "5.8",
    },
    Feature {
        name: "hash maps",
        purpose: "to keep who holds what",
        probe: |_| Ok(is_map_supported(MapType::Hash)?),
        instead: None,
        since: "3.19",
    },
    Feature {
        name: "LRU hash maps",
        purpose: "to keep what has just ended",
        probe: |_| Ok(is_map_supported(MapType::LruHash)?),
        instead: None,
        since: "4.10",
    },
    Feature {
        name: "tail calls",
        purpose: "to search for holders in steps that the verifier can check",
        probe: |_| Ok(is_map_supported(MapType::ProgramArray)?),
        instead: None,
        since: "4.2",
    },
];

pub(super) fn facts() -> Vec<Fact> {
    let features = FEATURES.iter();
    features
        .map(|feature| {
            Fact::new(feature.name, feature.purpose, move |machine| feature.look(machine))
        })
        .collect()
}

impl Feature {
    fn look(&self, machine: &Machine) -> Finding {
        let found = "this kernel does not have it";
        let remedy = format!("boot a kernel from {} on", self.since);
        match ((self.probe)(machine), self.instead) {
            (Ok(true), _) => Finding::ok("there"),
            (Ok(false), Some(instead)) => Finding::degraded(found, instead).mended_by(remedy),
            (Ok(false), None) => Finding::missing(found, remedy),
            (Err(error), _) => Finding::unknown(format!("cannot try: {error:#}")),
        }
    }
}
