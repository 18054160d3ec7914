//! The eBPF features of this kernel, found by trying and not by version.

use anyhow::{Result, anyhow};
use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};

use super::{Finding, Machine, Probe};
use crate::tracer::features;

/// A feature that the programs use.
struct Feature {
    name: &'static str,
    purpose: &'static str,
    /// Whether the kernel has it.
    is_supported: fn(&Machine) -> Result<bool>,
    /// What the tracer does without it; `None` if it cannot do without.
    instead: Option<&'static str>,
    /// The first kernel version that has it, for the remedy.
    since: &'static str,
}

const FEATURES: [Feature; 8] = [
    Feature {
        name: "tracepoint programs",
        purpose: "to trace system calls",
        is_supported: |_| Ok(is_program_supported(ProgramType::TracePoint)?),
        instead: None,
        since: "4.7",
    },
    Feature {
        name: "raw tracepoint programs",
        purpose: "to trace forks, execs and exits",
        is_supported: |_| Ok(is_program_supported(ProgramType::RawTracePoint)?),
        instead: None,
        since: "4.17",
    },
    Feature {
        name: "task_file iterator",
        purpose: "to record the files that are open when tracing begins",
        is_supported: |machine| {
            let btf = machine.btf().map_err(|error| anyhow!("{error}"))?;
            Ok(btf.has_iterator("task_file"))
        },
        instead: None,
        since: "5.8",
    },
    Feature {
        name: "late map memory",
        purpose: "to allocate memory for map elements only when they are added",
        is_supported: |machine| {
            let btf = machine.btf().map_err(|error| anyhow!("{error}"))?;
            Ok(features::maps_allocate_late(btf))
        },
        instead: Some("all of it is allocated at the start"),
        since: "6.1",
    },
    Feature {
        name: "ring buffer",
        purpose: "to send records to user space, in order",
        is_supported: |_| Ok(is_map_supported(MapType::RingBuf)?),
        instead: None,
        since: "5.8",
    },
    Feature {
        name: "hash maps",
        purpose: "to store who holds which file",
        is_supported: |_| Ok(is_map_supported(MapType::Hash)?),
        instead: None,
        since: "3.19",
    },
    Feature {
        name: "LRU hash maps",
        purpose: "to store holds that have just ended",
        is_supported: |_| Ok(is_map_supported(MapType::LruHash)?),
        instead: None,
        since: "4.10",
    },
    Feature {
        name: "tail calls",
        purpose: "to search for holders in steps that the verifier can check",
        is_supported: |_| Ok(is_map_supported(MapType::ProgramArray)?),
        instead: None,
        since: "4.2",
    },
];

pub(super) fn probes() -> Vec<Probe> {
    let features = FEATURES.iter();
    features
        .map(|feature| {
            Probe::new(feature.name, feature.purpose, move |machine| feature.finding(machine))
        })
        .collect()
}

impl Feature {
    fn finding(&self, machine: &Machine) -> Finding {
        let found = "not in this kernel";
        let remedy = format!("boot kernel {} or newer", self.since);
        match ((self.is_supported)(machine), self.instead) {
            (Ok(true), _) => Finding::ok("supported"),
            (Ok(false), Some(instead)) => Finding::degraded(found, instead).with_remedy(remedy),
            (Ok(false), None) => Finding::missing(found, remedy),
            (Err(error), _) => Finding::unknown(format!("cannot find out: {error:#}")),
        }
    }
}
