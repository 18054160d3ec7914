//! ELF files of a hundred bytes, elf(5).

use anyhow::Result;
use std::fs::File;
use std::io::Read;

const EHDR: usize = size_of::<libc::Elf64_Ehdr>();
const PHDR: usize = size_of::<libc::Elf64_Phdr>();

/// The load address.
const BASE: u64 = 0x40_0000;

/// `_exit(0)` in machine code; `None` for other architectures.
const EXIT: Option<&[u8]> = if cfg!(target_arch = "x86_64") {
    // xor edi, edi; mov eax, 60; syscall
    Some(b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05")
} else if cfg!(target_arch = "aarch64") {
    // mov x0, #0; mov x8, #93; svc #0
    Some(b"\x00\x00\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4")
} else {
    None
};

/// The shortest program, which exits at once.
pub(super) fn exit() -> Result<Vec<u8>> {
    match EXIT {
        Some(code) => file(libc::PT_LOAD, libc::PF_R | libc::PF_X, code),
        None => Ok(std::fs::read("/bin/true")?),
    }
}

/// A program that sleeps for `nap_ns`, less than a second, and exits with status 0; and the guaranteed
/// time in nanoseconds.
pub(super) fn nap(nap_ns: u32) -> Result<(Vec<u8>, u32)> {
    if !cfg!(target_arch = "x86_64") {
        return Ok((exit()?, 0));
    }
    // sub rsp, 16; mov qword [rsp], 0; mov qword [rsp + 8], nap_ns
    let mut code = b"\x48\x83\xec\x10\x48\xc7\x04\x24\0\0\0\0\x48\xc7\x44\x24\x08".to_vec();
    code.extend(nap_ns.to_le_bytes());
    // mov rdi, rsp; xor esi, esi; mov eax, 35; syscall
    code.extend(b"\x48\x89\xe7\x31\xf6\xb8\x23\0\0\0\x0f\x05");
    code.extend(EXIT.unwrap_or_default());
    Ok((file(libc::PT_LOAD, libc::PF_R | libc::PF_X, &code)?, nap_ns))
}

/// A program of headers and the name of its interpreter: the kernel reads no more before it opens the
/// interpreter.
pub(super) fn interpreted(interpreter: &[u8]) -> Result<Vec<u8>> {
    file(libc::PT_INTERP, libc::PF_R, &[interpreter, b"\0"].concat())
}

/// An ELF file with one segment, which follows the headers.
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

/// A 32-bit program for x86 that writes "ready" and a newline, waits for a byte or the end of stdin,
/// and exits with status 0.
#[cfg(target_arch = "x86_64")]
pub(super) fn waits_in_32_bits() -> Vec<u8> {
    const TEXT: &[u8] = b"ready\n";
    let mut code = Vec::new();
    // mov eax, 4; mov ebx, 1; mov ecx, TEXT; mov edx, 6; int 0x80
    code.extend(b"\xb8\x04\0\0\0\xbb\x01\0\0\0\xb9");
    code.extend(DATA_IN_32_BITS.to_le_bytes());
    code.extend(b"\xba\x06\0\0\0\xcd\x80");
    // mov eax, 3; xor ebx, ebx; lea ecx, [esp - 16]; mov edx, 1; int 0x80
    code.extend(b"\xb8\x03\0\0\0\x31\xdb\x8d\x4c\x24\xf0\xba\x01\0\0\0\xcd\x80");
    // mov eax, 1; xor ebx, ebx; int 0x80
    code.extend(b"\xb8\x01\0\0\0\x31\xdb\xcd\x80");
    in_32_bits(TEXT, &code)
}

/// A 32-bit program for x86 that makes one system call and exits with its errno. [`DATA_IN_32_BITS`] is
/// the address of `data`.
#[cfg(target_arch = "x86_64")]
pub(super) fn calls_in_32_bits(number: u32, arguments: [u32; 3], data: &[u8]) -> Vec<u8> {
    let [first, second, third] = arguments;
    let mut code = Vec::new();
    // mov eax, number; mov ebx, first; mov ecx, second; mov edx, third
    for (opcode, value) in [(0xb8, number), (0xbb, first), (0xb9, second), (0xba, third)] {
        code.push(opcode);
        code.extend(value.to_le_bytes());
    }
    // int 0x80; neg eax; mov ebx, eax; mov eax, 1; int 0x80
    code.extend(b"\xcd\x80\xf7\xd8\x89\xc3\xb8\x01\0\0\0\xcd\x80");
    in_32_bits(data, &code)
}

/// The address of a 32-bit program's data.
#[cfg(target_arch = "x86_64")]
pub(super) const DATA_IN_32_BITS: u32 = BASE_IN_32_BITS + HEADERS_IN_32_BITS as u32;
#[cfg(target_arch = "x86_64")]
const BASE_IN_32_BITS: u32 = 0x0804_8000;
#[cfg(target_arch = "x86_64")]
const HEADERS_IN_32_BITS: usize = size_of::<libc::Elf32_Ehdr>() + size_of::<libc::Elf32_Phdr>();

/// A 32-bit program for x86: its data, then its code.
#[cfg(target_arch = "x86_64")]
fn in_32_bits(data: &[u8], code: &[u8]) -> Vec<u8> {
    const EHDR: usize = size_of::<libc::Elf32_Ehdr>();
    const PHDR: usize = size_of::<libc::Elf32_Phdr>();
    const BASE: u32 = BASE_IN_32_BITS;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_386
    file.extend(2_u16.to_le_bytes());
    file.extend(3_u16.to_le_bytes());
    // e_version, e_entry, e_phoff, e_shoff, e_flags
    for number in [1, DATA_IN_32_BITS + data.len() as u32, EHDR as u32, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    for number in [EHDR as u16, PHDR as u16, 1, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    let length = (HEADERS_IN_32_BITS + data.len() + code.len()) as u32;
    // PT_LOAD, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, PF_R | PF_X, p_align
    for number in [1, 0, BASE, BASE, length, length, 5, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend(data);
    file.extend(code);
    file
}
