//! ELF files of a hundred bytes, elf(5).

use anyhow::Result;
use std::fs::File;
use std::io::Read;

const EHDR: usize = size_of::<libc::Elf64_Ehdr>();
const PHDR: usize = size_of::<libc::Elf64_Phdr>();

/// Where the file is loaded, if it is.
const BASE: u64 = 0x40_0000;

/// What exits with status 0 at once: `_exit(0)` in machine code; `None` for other architectures.
const EXIT: Option<&[u8]> = if cfg!(target_arch = "x86_64") {
    // xor edi, edi; mov eax, 60; syscall
    Some(b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05")
} else if cfg!(target_arch = "aarch64") {
    // mov x0, #0; mov x8, #93; svc #0
    Some(b"\x00\x00\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4")
} else {
    None
};

/// A program that does nothing, the shortest that there is: so that a process which runs it is gone
/// soon.
pub(super) fn exit() -> Result<Vec<u8>> {
    match EXIT {
        Some(code) => file(libc::PT_LOAD, libc::PF_R | libc::PF_X, code),
        None => Ok(std::fs::read("/bin/true")?),
    }
}

/// A program that consists of its headers and the name of its interpreter: as far as the kernel
/// reads it before it opens that.
pub(super) fn interpreted(interpreter: &[u8]) -> Result<Vec<u8>> {
    file(libc::PT_INTERP, libc::PF_R, &[interpreter, b"\0"].concat())
}

/// A file of one segment, which is what follows the headers.
fn file(kind: u32, flags: u32, segment: &[u8]) -> Result<Vec<u8>> {
    let offset = (EHDR + PHDR) as u64;
    let length = segment.len() as u64;
    // This program's own header names the machine, the class and the ABI.
    let mut header = [0; EHDR];
    File::open("/proc/self/exe")?.read_exact(&mut header)?;
    header[16..18].copy_from_slice(&libc::ET_EXEC.to_ne_bytes()); // e_type
    header[24..32].copy_from_slice(&(BASE + offset).to_ne_bytes()); // e_entry
    header[32..40].copy_from_slice(&(EHDR as u64).to_ne_bytes()); // e_phoff
    header[40..48].fill(0); // e_shoff
    header[54..56].copy_from_slice(&(PHDR as u16).to_ne_bytes()); // e_phentsize
    header[56..58].copy_from_slice(&1_u16.to_ne_bytes()); // e_phnum
    header[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx

    let mut file = header.to_vec();
    file.extend(kind.to_ne_bytes()); // p_type
    file.extend(flags.to_ne_bytes()); // p_flags
    for number in [offset, BASE + offset, BASE + offset, length, length, 0x1000] {
        file.extend(number.to_ne_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    }
    file.extend(segment);
    Ok(file)
}
