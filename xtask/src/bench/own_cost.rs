//! What a tracer takes for itself: until it is ready, while nothing happens, and of memory.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{
    condition::{Condition, PerCondition},
    programs,
    sample::{Spread, bytes, time},
    tracer::Tracer,
};
use crate::table::Table;

/// How long the idle tracer is measured.
const IDLE: Duration = Duration::from_secs(3);

/// A tracer while there is nothing to see.
#[derive(Default)]
pub(super) struct Idle {
    /// CPU time, in nanoseconds.
    cpu: f64,
    resident: u64,
    maps: u64,
}

impl Idle {
    pub(super) fn measure(tracer: &Tracer) -> Result<Self> {
        let before = tracer.cpu_time()?;
        thread::sleep(IDLE);
        let used = tracer.cpu_time()?.saturating_sub(before);
        Ok(Self {
            cpu: used.as_secs_f64() * 1e9,
            resident: tracer.resident()?,
            maps: programs::map_bytes(tracer.pid())?,
        })
    }
}

/// `ready` is how long each tracer took to start, in nanoseconds.
pub(super) fn table(
    against: bool,
    ready: &PerCondition<Vec<f64>>,
    idle: &PerCondition<Idle>,
) -> Table {
    let head: &[&str] = if against { &["before", "now"] } else { &[""] };
    let mut table = Table::new(["the tracer itself"].iter().chain(head).copied());
    let mut row = |name: String, of: &dyn Fn(Condition) -> String| {
        let cells = Condition::traced(against).iter().map(|condition| of(*condition));
        table.row([name].into_iter().chain(cells));
    };
    row("from its start until it sees failures (quartiles)".into(), &|of| {
        Spread::of(&ready[of]).with(time)
    });
    let seconds = IDLE.as_secs();
    row(format!("CPU time in {seconds} s without a failure"), &|of| time(idle[of].cpu));
    row("resident memory".into(), &|of| bytes(idle[of].resident));
    row("memory of its eBPF maps, in the kernel".into(), &|of| bytes(idle[of].maps));
    table
}
