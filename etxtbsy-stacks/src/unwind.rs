//! The code addresses of a stack's frames.

use etxtbsy_trace_common::Stack;
use framehop::{
    CacheNative, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _,
};

use crate::{
    mappings::ADDRESS_MASK,
    modules::{Module, Unwinder},
    resolve::{Backing, Code},
};

/// The most frames, without the inlined functions.
const FRAMES: usize = 64;
/// The longest call instruction.
const CALL_BYTES: usize = 7;

/// Where a frame's code is.
pub(crate) struct Place {
    /// The index of its mapping.
    pub(crate) code: usize,
    /// The address in the process that belongs to the frame: of the call, not of what follows it.
    pub(crate) lookup: u64,
}

/// The rules of all files, which are found again by their addresses.
pub(crate) type Rules = CacheNative<MayAllocateDuringUnwind>;

/// Unwinds the copy from its registers. Ends where the copy ends, and before a frame that cannot be one: no code is
/// mapped there, or no call precedes the return address.
pub(crate) fn unwind<'a, 'm: 'a>(
    stack: &Stack,
    code: &[Code],
    module: impl Fn(u64) -> Option<&'a Module<'m>>,
    rules: &mut Rules,
) -> Vec<Place> {
    // Without a module, only frame pointers are left.
    let by_frame_pointers = Unwinder::new();
    let mut registers = registers(stack);
    let mut read = |address: u64| word(stack, address).ok_or(());
    let (mut places, mut return_address) = (Vec::new(), None);
    while places.len() < FRAMES {
        let lookup = return_address.map_or(stack.ip, |address: u64| address.wrapping_sub(1));
        let Some(at) = code.iter().position(|code| code.contains(lookup)) else { break };
        let within = match code[at].backing {
            Backing::File(id) => module(id),
            _ => None,
        };
        let stated = match within {
            None => None,
            Some(module) => {
                let offset = code[at].offset_of(lookup);
                // The file does not fit the mapping, or this is not code.
                let Some(stated) = offset.and_then(|offset| module.address(offset)) else { break };
                let is_called = || offset.is_some_and(|offset| follows_call(module, offset + 1));
                if return_address.is_some() && !is_called() {
                    break;
                }
                Some((module, stated))
            }
        };
        // What is reached by frame pointers from unknown code into unknown code, nothing confirms.
        let is_known = stated.is_some() || code[at].backing == Backing::Runtime;
        if return_address.is_some() && !is_known && places.last().is_some_and(|it: &Place| {
            !matches!(code[it.code].backing, Backing::File(id) if module(id).is_some())
        }) {
            break;
        }
        places.push(Place { code: at, lookup });
        let (unwinder, address) = match stated {
            Some((module, stated)) => (&module.unwinder, stated),
            None => (&by_frame_pointers, lookup),
        };
        let address = match return_address {
            None => Some(FrameAddress::from_instruction_pointer(address)),
            Some(_) => FrameAddress::from_return_address(address.wrapping_add(1)),
        };
        let Some(address) = address else { break };
        match unwinder.unwind_frame(address, &mut registers, rules, &mut read) {
            Ok(Some(next)) if next & ADDRESS_MASK != 0 => {
                return_address = Some(next & ADDRESS_MASK);
            }
            _ => break,
        }
    }
    places
}

/// Eight bytes of the copy.
fn word(stack: &Stack, address: u64) -> Option<u64> {
    let at = usize::try_from(address.checked_sub(stack.sp)?).ok()?;
    let copied = stack.bytes.get(..stack.len as usize)?;
    copied.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word))
}

#[cfg(target_arch = "x86_64")]
fn registers(stack: &Stack) -> UnwindRegsNative {
    UnwindRegsNative::new(stack.ip, stack.sp, stack.fp)
}

#[cfg(target_arch = "aarch64")]
fn registers(stack: &Stack) -> UnwindRegsNative {
    use framehop::aarch64::PtrAuthMask;
    let mask = PtrAuthMask(ADDRESS_MASK);
    UnwindRegsNative::new_with_ptr_auth_mask(mask, stack.lr, stack.sp, stack.fp)
}

/// Whether a call instruction ends at an offset in the file.
fn follows_call(module: &Module<'_>, offset: u64) -> bool {
    module.before(offset, CALL_BYTES).is_some_and(ends_with_call)
}

#[cfg(target_arch = "x86_64")]
fn ends_with_call(code: &[u8]) -> bool {
    let at = |back: usize| code.len().checked_sub(back).map_or(0, |at| code[at]);
    // call rel32; or call r/m64, with the register or address in 0 to 5 more bytes.
    at(5) == 0xe8
        || [2, 3, 4, 6, 7].iter().any(|size| at(*size) == 0xff && at(*size - 1) >> 3 & 7 == 2)
}

#[cfg(target_arch = "aarch64")]
fn ends_with_call(code: &[u8]) -> bool {
    let Some(instruction) = code.last_chunk().map(|word| u32::from_le_bytes(*word)) else {
        return false;
    };
    // bl; blr; blraa and its kin, which check the pointer first.
    instruction >> 26 == 0b10_0101
        || instruction & 0xffff_fc1f == 0xd63f_0000
        || instruction & 0xfeff_f800 == 0xd63f_0800
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_other_instructions() {
        for (code, expected) in [
            (&[0x90, 0x90, 0xe8, 1, 2, 3, 4][..], true),
            (&[0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0][..], true),
            (&[0x90, 0xff, 0x15, 1, 2, 3, 4][..], true),
            (&[0xff, 0x94, 0x24, 1, 2, 3, 4][..], true),
            // jmp *%rax; nops; nothing.
            (&[0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0][..], false),
            (&[0x90; 7][..], false),
            (&[][..], false),
        ] {
            assert_eq!(ends_with_call(code), expected, "{code:x?}");
        }
    }

    #[test]
    fn only_the_copied_bytes_are_read() {
        let mut stack = crate::resolve::empty_stack();
        (stack.sp, stack.len) = (0x1000, 12);
        stack.bytes[..8].copy_from_slice(&7_u64.to_ne_bytes());
        assert_eq!(word(&stack, 0x1000), Some(7));
        assert_eq!(word(&stack, 0x1008), None);
        assert_eq!(word(&stack, 0xfff), None);
        assert_eq!(word(&stack, u64::MAX), None);
        stack.len = u32::MAX;
        assert_eq!(word(&stack, 0x1000), None);
    }
}
