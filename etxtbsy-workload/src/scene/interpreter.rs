//! The busy file is the interpreter that the exec'd file names.

use super::Busy;
use crate::child::Program;
use crate::report::Scene;
use crate::{elf, stage};
use anyhow::Result;
use etxtbsy_trace_event::{Role, Via};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Arguments of `busy-script-interpreter` and `busy-elf-interpreter`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Create the files in DIR, and keep them [default: a temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn script(args: &Args) -> Result<Scene> {
    scene("busy-script-interpreter", args, Role::ScriptInterpreter, |interpreter| {
        Ok([b"#!", interpreter.as_os_str().as_bytes(), b"\n"].concat())
    })
}

pub(crate) fn elf(args: &Args) -> Result<Scene> {
    scene("busy-elf-interpreter", args, Role::ElfInterpreter, |interpreter| {
        elf::interpreted(interpreter.as_os_str().as_bytes())
    })
}

/// `contents` returns the contents of the exec'd file for the path of the interpreter.
fn scene(
    name: &str,
    args: &Args,
    role: Role,
    contents: impl FnOnce(&Path) -> Result<Vec<u8>>,
) -> Result<Scene> {
    let temporary = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let dir = match &args.dir {
        Some(dir) => dir.canonicalize()?,
        None => temporary.path().to_owned(),
    };
    let interpreter = dir.join("interpreter");
    stage::copy_program("/bin/true", &interpreter)?;
    let path = dir.join("program");
    let mut program = OpenOptions::new().write(true).create_new(true).mode(0o777).open(&path)?;
    program.write_all(&contents(&interpreter)?)?;
    drop(program);

    let busy = Busy::existing(interpreter)?;
    let program = Program::new(&path)?;
    let victim = busy.victim_by("execve", &path, || program.exec())?;
    let scene = victim.held_by(busy.open()?, Via::Open)?;
    Ok(Scene { scenario: name.into(), role: Some(role), ..scene })
}
