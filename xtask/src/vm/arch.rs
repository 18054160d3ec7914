//! What differs between the processors that virtual machines have.

use std::ffi::OsString;

/// A processor's architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// This machine's.
    pub(super) const OWN: Self =
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// The kernel's version and the architecture in what was asked for: `6.12`, `6.12-arm64`.
    pub(super) fn of(wanted: &str) -> (&str, Self) {
        match wanted.strip_suffix("-arm64") {
            Some(version) => (version, Self::Arm64),
            None => (wanted, Self::Amd64),
        }
    }

    /// Debian's name of it.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Whether this machine's programs are for it.
    pub(super) fn is_own(self) -> bool {
        self == Self::OWN
    }

    /// Debian's package of a QEMU for it, and the program in that.
    pub(super) fn qemu(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("qemu-system-x86", "qemu-system-x86_64"),
            Self::Arm64 => ("qemu-system-arm", "qemu-system-aarch64"),
        }
    }

    /// QEMU's machine.
    pub(super) fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "q35",
            Self::Arm64 => "virt",
        }
    }

    /// QEMU's emulated processor. The first has no fifth level of page tables, and not the
    /// instructions that copy byte by byte, which are fast in hardware only; the second has no
    /// signed pointers, which are slow in software.
    pub(super) fn emulated(self) -> &'static str {
        match self {
            Self::Amd64 => "max,la57=off,erms=off,fsrm=off",
            Self::Arm64 => "cortex-a72",
        }
    }

    /// The terminal that the kernel's messages go to, and the one that lines come from.
    pub(super) fn terminals(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("ttyS0", "ttyS1"),
            // There is one serial port.
            Self::Arm64 => ("ttyAMA0", "hvc0"),
        }
    }

    /// How QEMU makes the second terminal, on its stdout.
    pub(super) fn lines(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["-serial", "stdio"],
            Self::Arm64 => &[
                "-chardev",
                "stdio,id=lines,signal=off",
                "-device",
                "virtio-serial-pci",
                "-device",
                "virtconsole,chardev=lines",
            ],
        }
    }

    /// Modules that the tests need, by the names that `lsmod` shows; and the second terminal.
    pub(super) fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["overlay", "loop"],
            Self::Arm64 => &["overlay", "loop", "virtio_pci", "virtio_console"],
        }
    }

    /// What Debian's programs are linked with: files of its package libc6.
    pub(super) fn libraries(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"],
            Self::Arm64 => ["lib/ld-linux-aarch64.so.1", "lib/aarch64-linux-gnu/libc.so.6"],
        }
    }

    /// What cargo builds for, if that is not this machine: static programs, which take no C
    /// compiler and no libraries of another architecture.
    pub(super) fn target(self) -> Option<&'static str> {
        if self.is_own() {
            return None;
        }
        Some(match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        })
    }
}

/// What cargo is told to link for a target by the linker that comes with Rust.
pub(super) fn linker(target: &str) -> (OsString, &'static str) {
    let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    (variable.into(), "rust-lld")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_name_its_architecture() {
        assert_eq!(Arch::of("6.12"), ("6.12", Arch::Amd64));
        assert_eq!(Arch::of("6.12-arm64"), ("6.12", Arch::Arm64));
    }

    #[test]
    fn the_linker_is_named_as_cargo_takes_it() {
        let (variable, _) = linker("aarch64-unknown-linux-musl");
        assert_eq!(variable, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER");
    }
}
