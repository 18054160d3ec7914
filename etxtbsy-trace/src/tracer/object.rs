//! The object file with the eBPF programs, as the running kernel takes it.

use std::borrow::Cow;

use anyhow::Context as _;
use etxtbsy_trace_common::{CAST_FUNCTION, CAST_WORDS};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};

use crate::tracer::features::Cast;

/// As built, for kernels without the function `bpf_rdonly_cast`.
static PLAIN: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/etxtbsy-trace-ebpf"));

/// As built, for kernels with it (6.2 on).
static CASTING: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/etxtbsy-trace-ebpf-cast"));

/// `BPF_F_NO_PREALLOC`, include/uapi/linux/bpf.h.
const NO_PREALLOC: u8 = 1;

/// Where `map_flags` is in `struct bpf_map_def`, after four words of as many bytes.
const MAP_FLAGS: u64 = 16;

/// How many bytes an instruction has.
const INSTRUCTION: usize = 8;

/// The object file for a kernel; if `preallocated`, with maps that take all their memory at the start.
pub(super) fn for_kernel(
    preallocated: bool,
    cast: Option<Cast>,
) -> anyhow::Result<Cow<'static, [u8]>> {
    let mut bytes = Cow::Borrowed(if cast.is_some() { CASTING } else { PLAIN });
    if preallocated {
        for at in map_flags(&bytes)? {
            bytes.to_mut()[at] &= !NO_PREALLOC;
        }
    }
    if let Some(cast) = cast {
        for at in casts(&bytes)? {
            bytes.to_mut()[at..at + CAST.len()].copy_from_slice(&cast_of(cast));
        }
    }
    Ok(bytes)
}

/// Two instructions (`struct bpf_insn`, include/uapi/linux/bpf.h): one that puts [`CAST_WORDS`] into the
/// second argument's register, one that calls the helper [`CAST_FUNCTION`].
const CAST: [u8; 16] = instructions(CAST_WORDS, 0, CAST_FUNCTION);

/// The same with a kernel's ids, and the call one of a kernel's function (`BPF_PSEUDO_KFUNC_CALL` as its
/// source register).
fn cast_of(Cast { function, words }: Cast) -> [u8; 16] {
    instructions(words, if cfg!(target_endian = "little") { 0x20 } else { 0x02 }, function)
}

const fn instructions(words: u32, source: u8, function: u32) -> [u8; 16] {
    let second = if cfg!(target_endian = "little") { 0x02 } else { 0x20 };
    let (w, f) = (words.to_ne_bytes(), function.to_ne_bytes());
    // `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_JMP | BPF_CALL`.
    [0xb7, second, 0, 0, w[0], w[1], w[2], w[3], 0x85, source, 0, 0, f[0], f[1], f[2], f[3]]
}

/// Where in an object file [`CAST`] stands.
fn casts(object: &[u8]) -> anyhow::Result<Vec<usize>> {
    let file = object::File::parse(object).context("cannot read the eBPF object")?;
    let mut found = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (start, size) = section.file_range().unwrap_or_default();
        let (start, size) = (usize::try_from(start)?, usize::try_from(size)?);
        let code = &object[start..start + size];
        let is_one = |at: &usize| code[*at..].starts_with(&CAST);
        found.extend((0..size).step_by(INSTRUCTION).filter(is_one).map(|at| start + at));
    }
    Ok(found)
}

/// Where in an object file the flags of its maps are, by their lowest byte.
fn map_flags(object: &[u8]) -> anyhow::Result<Vec<usize>> {
    let file = object::File::parse(object).context("cannot read the eBPF object")?;
    let maps = file.section_by_name("maps").context("the eBPF object has no maps")?;
    let (start, size) = maps.file_range().context("the eBPF object's maps have no bytes")?;
    file.symbols()
        .filter(|symbol| symbol.section_index() == Some(maps.index()) && symbol.is_definition())
        .map(|symbol| symbol.address() + MAP_FLAGS)
        .filter(|at| *at < size)
        .map(|at| Ok(usize::try_from(start + at)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::generated::bpf_insn;
    use std::{
        collections::{BTreeSet, HashSet},
        ops::Range,
    };

    #[test]
    fn flags_of_maps_are_found() {
        let kept = for_kernel(false, None).unwrap();
        let changed = for_kernel(true, None).unwrap();
        let all = map_flags(&kept).unwrap();
        assert!(all.iter().all(|at| kept[*at] & !NO_PREALLOC == 0 && changed[*at] == 0));
        let late = all.iter().filter(|at| kept[**at] == NO_PREALLOC).count();
        assert!(late > 0);
        assert_eq!(different(&kept, &changed).count(), late, "nothing else is changed");
    }

    #[test]
    fn casts_are_calls_of_the_kernels_function() {
        let cast = Cast { function: 0x0102_0304, words: 0x0506_0708 };
        let changed = for_kernel(false, Some(cast)).unwrap();
        let all = casts(CASTING).unwrap();
        assert!(!all.is_empty());
        assert!(all.iter().all(|at| changed[*at..].starts_with(&cast_of(cast))));
        let is_within = |at: &usize| all.iter().any(|cast| (*cast..cast + CAST.len()).contains(at));
        assert!(different(CASTING, &changed).all(|at| is_within(&at)), "nothing else is changed");
        assert!(casts(PLAIN).unwrap().is_empty());
    }

    /// `MAX_BPF_STACK` of include/linux/filter.h: for all functions that are active at once.
    const MAX_STACK: usize = 512;

    /// The functions of a program, by their first instruction.
    struct Functions<'a> {
        instructions: &'a [bpf_insn],
        starts: BTreeSet<usize>,
    }

    impl<'a> Functions<'a> {
        fn new(instructions: &'a [bpf_insn]) -> Self {
            let mut functions = Self { instructions, starts: BTreeSet::from([0]) };
            let called = (0..instructions.len()).filter_map(|at| functions.called_at(at));
            functions.starts = called.chain([0]).collect();
            functions
        }

        /// The function that an instruction calls.
        fn called_at(&self, at: usize) -> Option<usize> {
            const CALL: u8 = 0x85;
            const PSEUDO_CALL: u8 = 1;
            let insn = &self.instructions[at];
            (insn.code == CALL && insn.src_reg() == PSEUDO_CALL)
                .then(|| (at as i32 + 1 + insn.imm) as usize)
        }

        fn body(&self, start: usize) -> Range<usize> {
            let next = self.starts.range(start + 1..).next();
            start..next.copied().unwrap_or(self.instructions.len())
        }

        /// The offset from the frame pointer that an instruction uses, downwards.
        fn frame_offset(&self, at: usize) -> Option<i32> {
            const FRAME: u8 = 10;
            const LDX: u8 = 1;
            const ST: u8 = 2;
            const STX: u8 = 3;
            // `BPF_ALU64 | BPF_MOV | BPF_X`, and `BPF_ALU64 | BPF_ADD | BPF_K` with what it has moved.
            const MOVE: u8 = 0xbf;
            const ADD: u8 = 0x07;
            let insn = &self.instructions[at];
            match insn.code & 7 {
                LDX if insn.src_reg() == FRAME => Some(-i32::from(insn.off)),
                ST | STX if insn.dst_reg() == FRAME => Some(-i32::from(insn.off)),
                _ if insn.code == ADD => {
                    let before = &self.instructions[at.checked_sub(1)?];
                    (before.code == MOVE && before.src_reg() == FRAME).then_some(-insn.imm)
                }
                _ => None,
            }
        }

        /// How much stack a function and those that it calls need, as `check_max_stack_depth` counts it
        /// (kernel/bpf/verifier.c, 5.10). Later kernels round up to less.
        fn stack(&self, start: usize) -> usize {
            let own = self.body(start).filter_map(|at| self.frame_offset(at)).max();
            let own = own.map_or(1, |most| most.max(1) as usize).next_multiple_of(32);
            let called: BTreeSet<_> =
                self.body(start).filter_map(|at| self.called_at(at)).collect();
            own + called.into_iter().map(|callee| self.stack(callee)).max().unwrap_or(0)
        }
    }

    #[test]
    fn no_program_needs_more_stack_than_the_oldest_kernel_allows() {
        for bytes in [PLAIN, CASTING] {
            let mut object = aya_obj::Object::parse(bytes).unwrap();
            let sections: HashSet<_> =
                object.functions.keys().map(|(section, _)| *section).collect();
            object.relocate_calls(&sections).unwrap();
            let programs = object.programs.iter();
            let deepest = programs
                .map(|(name, program)| {
                    let function = &object.functions[&program.function_key()];
                    (Functions::new(&function.instructions).stack(0), name)
                })
                .max()
                .unwrap();
            // Not next to nothing either: the instructions were understood.
            assert!((MAX_STACK / 2..=MAX_STACK).contains(&deepest.0), "{deepest:?}");
        }
    }

    fn different(one: &[u8], other: &[u8]) -> impl Iterator<Item = usize> {
        assert_eq!(one.len(), other.len());
        one.iter().zip(other).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at)
    }
}
