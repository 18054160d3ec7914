//! A mapped ELF file, and what has been read from it so far.

use std::cell::OnceCell;

use addr2line::Context;
use framehop::{ExplicitModuleSectionInfo, Module as Unwound, Unwinder as _, UnwinderNative};

use crate::{
    demangle::function,
    elf::{Elf, Slice, Storage},
    symbols::{self, Place, Symbols},
};

/// Unwinds within one file. Its addresses are those that the file states, so it serves all processes.
pub(crate) type Unwinder<'a> = UnwinderNative<&'a [u8], framehop::MayAllocateDuringUnwind>;

/// A program or library.
pub struct Module<'a> {
    elf: Elf<'a>,
    /// The file with the debug information that is not in `elf`.
    debug: Option<Elf<'a>>,
    pub(crate) unwinder: Unwinder<'a>,
    dwarf: OnceCell<Option<Context<Slice<'a>>>>,
    symbols: OnceCell<Symbols<'a>>,
}

impl<'a> Module<'a> {
    /// Parses a file. `separate` finds the file with the debug information of a build id.
    pub fn parse(
        data: &'a [u8],
        storage: &'a Storage,
        separate: impl Fn(&[u8]) -> Option<&'a [u8]>,
    ) -> Option<Self> {
        let elf = Elf::parse(data, storage)?;
        let unwinder = unwinder(&elf)?;
        let debug = match elf.section(".debug_info") {
            Some(_) => None,
            None => elf.build_id().and_then(|id| {
                let debug = Elf::parse(separate(id)?, storage)?;
                (debug.build_id() == Some(id)).then_some(debug)
            }),
        };
        Some(Self { elf, debug, unwinder, dwarf: OnceCell::new(), symbols: OnceCell::new() })
    }

    /// The address that the file states for an offset in it.
    pub(crate) fn address(&self, offset: u64) -> Option<u64> {
        self.elf.address(offset)
    }

    /// The bytes of the file before an offset.
    pub(crate) fn before(&self, offset: u64, count: usize) -> Option<&'a [u8]> {
        let end = usize::try_from(offset).ok()?;
        self.elf.data.get(end.checked_sub(count)?..end)
    }

    /// What is known about a stated address, innermost first: always one place, and more if functions are inlined.
    pub(crate) fn places(&self, address: u64) -> Vec<Place> {
        let elf = self.debug.as_ref().unwrap_or(&self.elf);
        let dwarf = self.dwarf.get_or_init(|| symbols::dwarf(elf));
        let mut places =
            dwarf.as_ref().map(|dwarf| symbols::places(dwarf, address)).unwrap_or_default();
        if places.is_empty() {
            places.push(Place::default());
        }
        // The outermost is the function that has the code: a symbol names it too.
        if let Some(place) = places.last_mut()
            && (place.function.is_none() || place.is_short)
            && let Some(name) = self.symbols().find(address)
        {
            place.function = Some(function(name));
        }
        places
    }

    fn symbols(&self) -> &Symbols<'a> {
        self.symbols.get_or_init(|| {
            let separate = self.debug.as_ref().map(Symbols::read);
            separate
                .filter(|symbols| !symbols.is_empty())
                .unwrap_or_else(|| Symbols::read(&self.elf))
        })
    }
}

fn unwinder<'a>(elf: &Elf<'a>) -> Option<Unwinder<'a>> {
    let addresses = elf.addresses()?;
    let sections = ExplicitModuleSectionInfo {
        base_svma: addresses.start,
        text_svma: elf.section_addresses(".text"),
        got_svma: elf.section_addresses(".got"),
        eh_frame_svma: elf.section_addresses(".eh_frame"),
        eh_frame: elf.section(".eh_frame"),
        eh_frame_hdr_svma: elf.section_addresses(".eh_frame_hdr"),
        eh_frame_hdr: elf.section(".eh_frame_hdr"),
        debug_frame: elf.section(".debug_frame"),
        ..ExplicitModuleSectionInfo::default()
    };
    let base = addresses.start;
    let mut unwinder = Unwinder::new();
    unwinder.add_module(Unwound::new(String::new(), addresses, base, sections));
    Some(unwinder)
}
