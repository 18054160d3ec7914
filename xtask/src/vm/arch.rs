//! The differences between the architectures of virtual machines.

/// A CPU architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// This machine's.
    pub(super) const OWN: Self =
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// Splits a requested version (`6.12`, `6.12-arm64`) into kernel version and architecture.
    pub(super) fn of(wanted: &str) -> (&str, Self) {
        match wanted.strip_suffix("-arm64") {
            Some(version) => (version, Self::Arm64),
            None => (wanted, Self::Amd64),
        }
    }

    /// Its name in Debian.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its names in files: Debian's, and that of Rust and RPM.
    pub(super) fn names(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => [self.debian(), "x86_64"],
            Self::Arm64 => [self.debian(), "aarch64"],
        }
    }

    /// Whether this machine has it.
    pub(super) fn is_own(self) -> bool {
        self == Self::OWN
    }

    /// Debian's package of QEMU for it, and the program in that package.
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

    /// QEMU's emulated CPU, without features that are slow in emulation: a fifth level of page tables, fast
    /// byte copies, signed pointers.
    pub(super) fn emulated(self) -> &'static str {
        match self {
            Self::Amd64 => "max,la57=off,erms=off,fsrm=off",
            Self::Arm64 => "cortex-a72",
        }
    }

    /// The terminal for kernel messages, and the terminal for init's lines.
    pub(super) fn terminals(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("ttyS0", "ttyS1"),
            // QEMU's machine has only one serial port.
            Self::Arm64 => ("ttyAMA0", "hvc0"),
        }
    }

    /// QEMU's arguments for the second terminal, on its stdout.
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

    /// The kernel modules for the tests and for the second terminal, by their names in `lsmod`.
    pub(super) fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["overlay", "loop"],
            Self::Arm64 => &["overlay", "loop", "virtio_pci", "virtio_console"],
        }
    }

    /// The libraries of Debian's programs, which are files of its package libc6.
    pub(super) fn libraries(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"],
            Self::Arm64 => ["lib/ld-linux-aarch64.so.1", "lib/aarch64-linux-gnu/libc.so.6"],
        }
    }

    /// Cargo's target, if it is another architecture: static programs need no C compiler and no libraries of
    /// that architecture.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_name_its_architecture() {
        assert_eq!(Arch::of("6.12"), ("6.12", Arch::Amd64));
        assert_eq!(Arch::of("6.12-arm64"), ("6.12", Arch::Arm64));
    }
}
