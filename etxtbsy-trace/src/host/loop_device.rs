//! Loop devices, which keep their backing file open without any process.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, ffi::OsStringExt as _},
    path::Path,
};

use crate::host::fs_view::Sight;

/// The loop device that writes to a file, such as `/dev/loop0`; `None` if there is none, or if
/// its backing file has no name any more. `dev` is the kernel's: major << 20 | minor.
///
/// From `/sys/block/loop*/loop/backing_file` (Documentation/ABI/testing/sysfs-block).
#[must_use]
pub fn of(dev: u32, ino: u64) -> Option<String> {
    let sight = Sight::ours()?;
    let is_backed = |device: &Path| {
        let path = fs::read(device.join("loop/backing_file")).ok()?;
        let path = path.strip_suffix(b"\n").unwrap_or(&path).to_vec();
        let writes = fs::read(device.join("ro")).ok()?.starts_with(b"0");
        let file = sight.find(Path::new(&std::ffi::OsString::from_vec(path)))?;
        (writes && (file.kernel_dev(), file.ino) == (dev, ino)).then_some(())
    };
    fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(b"loop") {
            return None;
        }
        is_backed(&entry.path())?;
        Some(format!("/dev/{}", name.to_string_lossy()))
    })
}
