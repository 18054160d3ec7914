//! The kernel's version, and whether it has what the tracer reads and the error that it traces.

use anyhow::Result;
use nix::sys::utsname::uname;

use super::{Finding, Machine, Probe};
use crate::tracer::{calibrate, layout, lockdown, offsets};

pub(super) fn probes() -> Vec<Probe> {
    vec![
        Probe::new("kernel", "to show its version", |_| release()),
        Probe::new("BTF", "to find the fields of the kernel's structures", btf).at_start(),
        Probe::new("fields", "to read who holds a file", fields),
        Probe::new("lockdown", "to let programs read the kernel's memory", |_| locked_down()),
        Probe::new(
            "exec of a written file",
            "to trace failed execs: this kernel must refuse to execute a file that is open for writing",
            |_| exec_denied(),
        ),
        Probe::new(
            "write to a running file",
            "to trace direction `write`: this kernel must refuse to write to a program that is running",
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
        Ok(Ok(_)) => Finding::ok("all struct fields found"),
        Ok(Err(error)) => Finding::missing(
            format!("{error:#}"),
            "install a newer etxtbsy-trace, or report this line as an issue: this kernel is not known yet",
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
            Finding::ok("integrity: does not affect this tool")
        }
        Ok(Some(mode)) => Finding::ok(mode),
        Err(error) => Finding::unknown(format!("cannot read securityfs: {error}")),
    }
}

fn exec_denied() -> Finding {
    let remedy = "boot a kernel before 6.11, or 6.12.2 or newer";
    denied(calibrate::busy_exec(), || Finding::missing(calibrate::ALLOWED, remedy))
}

fn write_denied() -> Finding {
    denied(calibrate::busy_write(), || {
        Finding::degraded(
            "this kernel allows writing to a running program",
            "nothing fails in direction `write`, so nothing is reported there",
        )
    })
}

fn denied(refused: Result<bool>, allowed: impl FnOnce() -> Finding) -> Finding {
    match refused {
        Ok(true) => Finding::ok("refused with ETXTBSY, tried on a temporary file"),
        Ok(false) => allowed(),
        Err(error) => Finding::unknown(format!("{error:#}")),
    }
}
