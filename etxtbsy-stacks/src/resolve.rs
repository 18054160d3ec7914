//! From a copy and its files to frames, without any system call. The helper calls it, and so does the fuzzer.

use etxtbsy_trace_common::{STACK_BYTES, Stack};
use serde::{Deserialize, Serialize};

use crate::{
    demangle::function,
    perf_map,
    unwind::{Rules, unwind},
};
pub use crate::{elf::Storage, modules::Module};

/// The most frames of one answer.
pub const FRAMES: usize = 128;
/// The function of code that a runtime made and that no perf map names.
const UNNAMED: &str = "[JIT]";

/// What backs a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// A file, by its number.
    File(u64),
    /// Nothing: a runtime made the code.
    Runtime,
    /// A file that could not be had, or the kernel.
    Unknown,
}

/// An executable mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Its first address.
    pub start: u64,
    /// The address after it.
    pub end: u64,
    /// The offset in the file.
    pub offset: u64,
    /// What backs it.
    pub backing: Backing,
}

impl Code {
    pub(crate) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// The offset in the file of an address in the mapping.
    pub(crate) fn offset_of(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.start)?.checked_add(self.offset)
    }
}

/// A frame. The module is only a number: the worker knows its path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// The function.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// The index of the mapping, unless a runtime made the code.
    pub code: Option<usize>,
}

/// Unwinds copies, and keeps the rules that it has found.
#[derive(Default)]
pub struct Unwinding(Rules);

/// The frames of a copy, innermost first, and how many are left out. `module` has the files by their numbers.
pub fn resolve<'a, 'm: 'a>(
    stack: &Stack,
    code: &[Code],
    module: impl Fn(u64) -> Option<&'a Module<'m>>,
    perf_map: &[u8],
    unwinding: &mut Unwinding,
) -> (Vec<Numbered>, u32) {
    let places = unwind(stack, code, &module, &mut unwinding.0);
    let is_runtime = |at: usize| code[at].backing == Backing::Runtime;
    let made = places.iter().filter(|place| is_runtime(place.code));
    let made: Vec<u64> = made.map(|place| place.lookup).collect();
    let mut names = perf_map::names(perf_map, &made).into_iter();
    let (mut frames, mut unknown) = (Vec::new(), 0);
    for place in places {
        if is_runtime(place.code) {
            let name = names.next().flatten().map(function);
            let function = name.or_else(|| Some(UNNAMED.to_owned()));
            frames.push(Numbered { function, ..Numbered::default() });
            continue;
        }
        let found = match code[place.code].backing {
            Backing::File(id) => module(id),
            _ => None,
        };
        let offset = code[place.code].offset_of(place.lookup);
        let stated = found.and_then(|module| Some((module, module.address(offset?)?)));
        match stated {
            None => unknown += 1,
            Some((module, address)) => {
                frames.extend(module.places(address).into_iter().map(|it| Numbered {
                    function: it.function,
                    file: it.file,
                    line: it.line,
                    code: Some(place.code),
                }));
            }
        }
    }
    unknown += frames.len().saturating_sub(FRAMES) as u32;
    frames.truncate(FRAMES);
    (frames, unknown)
}

/// A copy of nothing.
#[must_use]
pub fn empty_stack() -> Box<Stack> {
    Box::new(Stack {
        time_ns: 0,
        tgid: 0,
        tid: 0,
        ip: 0,
        sp: 0,
        fp: 0,
        lr: 0,
        len: 0,
        pad: 0,
        complete_ns: 0,
        bytes: [0; STACK_BYTES],
    })
}
