//! What is busy is not the file that is exec'd but the interpreter it names.

use super::Busy;
use crate::lines::{Role, Via};
use crate::workload::child::Program;
use crate::workload::report::Scene;
use crate::workload::stage;
use anyhow::Result;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the files are made.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Make the files in DIR, and leave them there [default: a temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(in crate::workload) fn script(args: &Args) -> Result<Scene> {
    scene("busy-script-interpreter", args, Role::ScriptInterpreter, |interpreter| {
        Ok([b"#!", interpreter.as_os_str().as_bytes(), b"\n"].concat())
    })
}

pub(in crate::workload) fn elf(args: &Args) -> Result<Scene> {
    scene("busy-elf-interpreter", args, Role::ElfInterpreter, |interpreter| {
        elf_with_interpreter(interpreter.as_os_str().as_bytes())
    })
}

/// `contents` gives what is exec'd, for an interpreter at that path.
fn scene(
    name: &str,
    args: &Args,
    role: Role,
    contents: impl FnOnce(&Path) -> Result<Vec<u8>>,
) -> Result<Scene> {
    let temporary = stage::directory(Path::new(stage::PLACE))?;
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

/// An ELF file that consists of its headers and the name of its interpreter, elf(5): as far as
/// the kernel reads it before it opens the interpreter.
fn elf_with_interpreter(interpreter: &[u8]) -> Result<Vec<u8>> {
    const EHDR: usize = size_of::<libc::Elf64_Ehdr>();
    const PHDR: usize = size_of::<libc::Elf64_Phdr>();

    // This program's own header names the machine, the class and the ABI.
    let mut header = [0; EHDR];
    File::open("/proc/self/exe")?.read_exact(&mut header)?;
    header[32..40].copy_from_slice(&(EHDR as u64).to_ne_bytes()); // e_phoff
    header[40..48].fill(0); // e_shoff
    header[54..56].copy_from_slice(&(PHDR as u16).to_ne_bytes()); // e_phentsize
    header[56..58].copy_from_slice(&1_u16.to_ne_bytes()); // e_phnum
    header[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx

    let length = (interpreter.len() + 1) as u64;
    let mut file = header.to_vec();
    file.extend(libc::PT_INTERP.to_ne_bytes()); // p_type
    file.extend(libc::PF_R.to_ne_bytes()); // p_flags
    file.extend(((EHDR + PHDR) as u64).to_ne_bytes()); // p_offset
    file.extend([0; 16]); // p_vaddr, p_paddr
    file.extend(length.to_ne_bytes()); // p_filesz
    file.extend(length.to_ne_bytes()); // p_memsz
    file.extend(1_u64.to_ne_bytes()); // p_align
    file.extend(interpreter);
    file.push(0);
    Ok(file)
}
