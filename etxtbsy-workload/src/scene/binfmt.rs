//! The busy file is the interpreter of the interpreter that a binfmt_misc entry names. With the flag `O`
//! the kernel keeps the program itself open, so the busy file is the third file of the exec.

use super::{Busy, Named, Supported};
use crate::child::Program;
use crate::report::Scene;
use crate::{elf, stage};
use anyhow::Result;
use etxtbsy_trace_event::{Role, Via};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub(super) const SCENES: &[Named] = &[
    ("binfmt-script", || scene(Role::ScriptInterpreter, |busy| Ok([b"#!", busy, b"\n"].concat()))),
    ("binfmt-elf", || scene(Role::ElfInterpreter, elf::interpreted)),
];

/// `interpreter` returns the contents of the entry's interpreter for the path of the busy file.
fn scene(role: Role, interpreter: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let [busy, between, path, control] =
        ["busy", "between", "program", "control"].map(|name| dir.path().join(name));
    stage::copy_program("/bin/true", &busy)?;
    drop(stage::executable(&between, &interpreter(busy.as_os_str().as_bytes())?)?);
    let name = format!("etxtbsy-trace-{}", std::process::id());
    drop(stage::executable(&path, format!("{name}\n").as_bytes())?);
    fs::create_dir(&control)?;
    let _entry = Entry::new(&control, &name, &between)?;

    let busy = Busy::existing(busy)?;
    let program = Program::new(&path)?;
    let victim = busy.victim_by("execve", &path, || program.exec())?;
    let scene = victim.held_by(busy.open()?, Via::Open)?;
    // After the failure, the tracer reads the interpreter's role by its path in this mount namespace.
    thread::sleep(Duration::from_secs(1));
    Ok(Scene { role: Some(role), ..scene })
}

/// An entry of binfmt_misc and the mount in which it was created; both are removed when dropped.
struct Entry {
    control: PathBuf,
    name: String,
}

impl Entry {
    /// An entry for programs that begin with its name.
    fn new(control: &Path, name: &str, interpreter: &Path) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).supported("unshare(CLONE_NEWNS)")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).supported("mount")?;
        mount(Some("none"), control, Some("binfmt_misc"), MsFlags::empty(), none)
            .supported("mount binfmt_misc")?;
        let entry = Self { control: control.into(), name: name.into() };
        let line = format!(":{name}:M::{name}::{}:O", interpreter.display());
        fs::write(control.join("register"), line)
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
            .supported("a binfmt_misc entry")?;
        Ok(entry)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Fails if the registration was refused.
        let _: io::Result<()> = fs::write(self.control.join(&self.name), "-1");
        let _ = umount2(&self.control, MntFlags::MNT_DETACH);
    }
}
