//! Reads any bytes as a stack, a perf map and an ELF file.

use etxtbsy_stacks::resolve::{
    Backing, Code, FRAMES, Module, Storage, Unwinding, empty_stack, resolve,
};

/// Where the file is mapped, and where code is that a runtime made.
const FILE: u64 = 0x40_0000;
const RUNTIME: u64 = 0x50_0000;

/// Reads the bytes as four registers, a stack and a perf map, each after its length in two bytes, and an ELF file: there
/// are frames, within bounds.
pub fn stacks(mut bytes: &[u8]) {
    let mut stack = empty_stack();
    let mut register = || {
        let (register, rest) = bytes.split_first_chunk()?;
        bytes = rest;
        Some(u64::from_le_bytes(*register))
    };
    for place in [&mut stack.ip, &mut stack.sp, &mut stack.fp, &mut stack.lr] {
        *place = register().unwrap_or_default();
    }
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (part, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        bytes = rest;
        Some(part)
    };
    let words = part().unwrap_or_default();
    let words = &words[..words.len().min(stack.bytes.len())];
    stack.bytes[..words.len()].copy_from_slice(words);
    stack.len = words.len() as u32;
    let perf_map = part().unwrap_or_default();
    let storage = Storage::default();
    let module = Module::parse(bytes, &storage, |_| None);
    let code = [
        Code { start: FILE, end: FILE + 0x10_0000, offset: 0, backing: Backing::File(0) },
        Code { start: RUNTIME, end: RUNTIME + 0x1000, offset: 0, backing: Backing::Runtime },
    ];
    let mut unwinding = Unwinding::default();
    let (frames, _) = resolve(&stack, &code, |_| module.as_ref(), perf_map, &mut unwinding);
    assert!(frames.len() <= FRAMES);
}
