//! Numbers that user programs see too.

/// −ETXTBSY, the same number on every architecture that Rust and eBPF share.
pub(crate) const ETXTBSY: i64 = -26;
/// `AT_FDCWD`, include/uapi/linux/fcntl.h.
pub(crate) const AT_FDCWD: i32 = -100;
