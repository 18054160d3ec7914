//! Asks user space to follow the system calls of 32-bit programs.

use etxtbsy_trace_common::{Compat, Compat32, Config, Kind, Lost};

use crate::{
    emit::{
        intake,
        ringbuf::{self, WAKE},
    },
    kernel,
    maps::{CONFIG, lost},
    tree,
};

#[inline(always)]
fn set_state(to: Compat32) {
    if let Some(state) = CONFIG.get_ptr_mut(Config::Compat as u32) {
        // SAFETY: an element of an array map lives as long as the map; it is written as a whole.
        unsafe { state.write_volatile(to as u64) };
    }
}

/// A process begins that [`kernel::is_unfollowed_program`]: counted, because the programs miss its first
/// calls.
#[inline(always)]
pub(crate) fn began(tgid: u32) {
    if tree::contains(tgid) && intake::is_tracing() {
        lost(Lost::CompatUnfollowed);
    }
    seen(tgid);
}

/// A process makes 32-bit calls: asks user space to attach `compat_returns`.
#[inline(always)]
pub(crate) fn seen(tgid: u32) {
    if !kernel::can_follow_compat() || kernel::compat_state() != Compat32::Unseen as u64 {
        return;
    }
    set_state(Compat32::Seen);
    if !ringbuf::record(&Compat { kind: Kind::Compat as u32, tgid }, WAKE) {
        // The next 32-bit call requests it again.
        set_state(Compat32::Unseen);
    }
}

/// The same at the start, when user space reads the setting itself.
#[inline(always)]
pub(crate) fn found() {
    if kernel::can_follow_compat() {
        set_state(Compat32::Seen);
    }
}
