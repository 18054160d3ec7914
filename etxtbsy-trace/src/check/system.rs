//! Which kernel it is, and whether it has the error that we trace.

use anyhow::Result;
use nix::sys::utsname::uname;

use super::{Fact, Finding, Machine};
use crate::tracer::{calibrate, layout, lockdown, offsets};

pub(super) fn facts() -> Vec<Fact> {
    vec![
        Fact::new("kernel", "to run on", |_| release()),
        Fact::new("BTF", "to find the fields of the kernel's structures", btf).at_start(),
        Fact::new("fields", "to read who holds a file", fields),
        Fact::new("lockdown", "to let programs read the kernel's memory", |_| locked_down()),
        Fact::new("exec of a written file", "for there to be anything to trace", |_| exec_denied()),
        Fact::new(
            "write to a running file",
            "for there to be anything to trace in the other direction",
            |_| write_denied(),
        ),
    ]
}

fn release() -> Finding {
    match uname() {
        Ok(system) => Finding::ok(format!(
            "{} {}",
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        )),
        Err(errno) => Finding::unknown(errno.desc()),
    }
}

fn btf(_: &Machine) -> Finding {
    match std::fs::File::open(layout::VMLINUX) {
        Ok(_) => Finding::ok(layout::VMLINUX),
        Err(error) => Finding::missing(
            format!("{}: {error}", layout::VMLINUX),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

fn fields(machine: &Machine) -> Finding {
    match machine.btf().map(offsets::resolve) {
        Ok(Ok(_)) => Finding::ok("all are where they are looked for"),
        Ok(Err(error)) => Finding::missing(
            format!("{error:#}"),
            "this kernel is not known yet: take a newer etxtbsy-trace, or report it with that line",
        ),
        Err(error) => Finding::unknown(error),
    }
}

fn locked_down() -> Finding {
    match lockdown::mode() {
        Ok(None) => Finding::ok("not in this kernel"),
        Ok(Some(mode)) if mode == "confidentiality" => Finding::missing(
            "confidentiality: programs may not read the kernel's memory",
            "boot with lockdown=integrity, or without",
        ),
        Ok(Some(mode)) if mode == "integrity" => {
            Finding::ok("integrity: what it forbids, nothing here does")
        }
        Ok(Some(mode)) => Finding::ok(mode),
        Err(error) => Finding::unknown(format!("cannot look into securityfs: {error}")),
    }
}

fn exec_denied() -> Finding {
    let lost = "boot a kernel that refuses it: any before 6.11, or from 6.12.2 on";
    denied(calibrate::busy_exec(), || Finding::missing(calibrate::ALLOWED, lost))
}

fn write_denied() -> Finding {
    denied(calibrate::busy_write(), || {
        Finding::degraded(
            "this kernel lets a running program be written",
            "nothing fails in that direction, and nothing is told",
        )
    })
}

fn denied(refused: Result<bool>, allowed: impl FnOnce() -> Finding) -> Finding {
    match refused {
        Ok(true) => Finding::ok("refused with ETXTBSY, tried on a file of our own"),
        Ok(false) => allowed(),
        Err(error) => Finding::unknown(format!("{error:#}")),
    }
}
