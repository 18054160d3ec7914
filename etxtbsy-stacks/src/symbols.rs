//! The functions and lines of an address: from DWARF, or from a symbol table.

use addr2line::Context;
use gimli::{DebugInfo, Dwarf};
use object::{Object as _, ObjectSymbol as _, SymbolKind, read::elf::ElfSymbol64};

use crate::{
    demangle::{bounded, function},
    elf::{Elf, Slice},
};

/// How many symbols that begin at or before an address are tried, because they can overlap.
const OVERLAPPING: usize = 16;
/// The most functions that are inlined in one another.
const INLINED: usize = 64;

/// What is known about a place in code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// Whether the function lacks its namespaces: rustc writes no more with `debuginfo=1`.
    pub(crate) is_short: bool,
}

/// The functions of a symbol table.
#[derive(Default)]
pub(crate) struct Symbols<'a> {
    /// Sorted by start: start, end, name.
    functions: Vec<(u64, u64, &'a [u8])>,
}

impl<'a> Symbols<'a> {
    /// Reads .symtab, or .dynsym where there is none.
    pub(crate) fn read(elf: &Elf<'a>) -> Self {
        let mut functions: Vec<_> = elf.file.symbols().filter_map(|it| named(&it)).collect();
        if functions.is_empty() {
            functions = elf.file.dynamic_symbols().filter_map(|it| named(&it)).collect();
        }
        // Of names for the same code, the one with the fewest underscores in front: open, not __libc_open.
        let underscores = |name: &[u8]| name.iter().take_while(|byte| **byte == b'_').count();
        functions
            .sort_by_key(|(start, end, name)| (*start, *end, std::cmp::Reverse(underscores(name))));
        Self { functions }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The function with the latest start that has the address within its size.
    pub(crate) fn find(&self, address: u64) -> Option<&'a [u8]> {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let before = self.functions[..after].iter().rev().take(OVERLAPPING);
        before.into_iter().find(|(_, end, _)| address < *end).map(|(_, _, name)| *name)
    }
}

/// A function that has a size, without which nothing says where it ends.
fn named<'a>(symbol: &ElfSymbol64<'a, '_, object::Endianness>) -> Option<(u64, u64, &'a [u8])> {
    let is_function = symbol.kind() == SymbolKind::Text && symbol.is_definition();
    let end = symbol.address().checked_add(symbol.size())?;
    let name = symbol.name_bytes().ok()?;
    (is_function && symbol.size() > 0 && !name.is_empty()).then_some((symbol.address(), end, name))
}

/// The DWARF of a file.
pub(crate) fn dwarf<'a>(elf: &Elf<'a>) -> Option<Context<Slice<'a>>> {
    elf.section(<DebugInfo<Slice> as gimli::Section<Slice>>::section_name())?;
    let load = |id: gimli::SectionId| Ok::<_, gimli::Error>(elf.slice(id.name()));
    Context::from_dwarf(Dwarf::load(load).ok()?).ok()
}

fn is_cpp(language: Option<gimli::DwLang>) -> bool {
    use gimli::{DW_LANG_C_plus_plus, DW_LANG_C_plus_plus_11, DW_LANG_C_plus_plus_14};
    let all = [DW_LANG_C_plus_plus, DW_LANG_C_plus_plus_11, DW_LANG_C_plus_plus_14];
    language.is_some_and(|language| all.contains(&language))
}

/// The functions at an address, innermost first: those that are inlined there, and the one that has the code. Empty if
/// the DWARF does not cover it.
pub(crate) fn places(dwarf: &Context<Slice<'_>>, address: u64) -> Vec<Place> {
    let mut places = Vec::new();
    // Split DWARF is in files of their own, which are not opened.
    let Ok(mut frames) = dwarf.find_frames(address).skip_all_loads() else { return places };
    while let Ok(Some(frame)) = frames.next() {
        let name = frame.function.as_ref().map(|name| function(name.name.slice()));
        let is_short = frame.function.as_ref().is_some_and(|name| {
            let has_namespaces =
                matches!(name.language, Some(gimli::DW_LANG_Rust)) || is_cpp(name.language);
            has_namespaces && !name.name.starts_with(b"_Z") && !name.name.starts_with(b"_R")
        });
        let location = frame.location.as_ref();
        places.push(Place {
            function: name.filter(|name| !name.is_empty()),
            file: location.and_then(|location| location.file).map(bounded),
            line: location.and_then(|location| location.line).filter(|line| *line > 0),
            is_short,
        });
        if places.len() >= INLINED {
            break;
        }
    }
    places
}
