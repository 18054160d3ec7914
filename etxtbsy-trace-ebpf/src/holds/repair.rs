//! A process whose write was refused replaces the file.

use etxtbsy_trace_common::{Config, Kind, Repair, Repaired};

use crate::{
    emit::ringbuf::{self, WAKE},
    kernel::{self, offset, word},
    maps::{CONFIG, REPAIRS},
};

/// Whether any call was refused whose process may replace the file.
#[inline(always)]
pub(crate) fn is_expected() -> bool {
    // SAFETY: a map value, see `maps`.
    CONFIG.get_ptr(Config::Repairs as u32).is_some_and(|any| unsafe { *any } != 0)
}

/// Reports that a process whose write was refused has replaced the file: it has opened another file for
/// writing by the same name in the same directory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_repair(file: u64, inode: u64, time_ns: u64) -> i32 {
    let tgid = kernel::tgid_of(kernel::current());
    let Some(repair) = REPAIRS.get_ptr(tgid) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let Repair { seq, inode: refused, directory, name } = unsafe { *repair };
    let dentry = word(file, offset!(file_f_path_dentry));
    let same = (word(dentry, offset!(dentry_d_parent)) == directory)
        & (word(dentry, offset!(dentry_d_name_hash_len)) == name);
    if !same || inode == refused {
        return 0;
    }
    let _ = REPAIRS.remove(tgid);
    let ino = word(inode, offset!(inode_i_ino));
    ringbuf::record(&Repaired { kind: Kind::Repaired as u32, tgid, seq, time_ns, ino }, WAKE);
    0
}
