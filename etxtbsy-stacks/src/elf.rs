//! An ELF file in memory: segments, sections, and its build id. The bytes are a stranger's.

use std::{cell::OnceCell, io::Read as _};

use gimli::{EndianSlice, LittleEndian};
use object::{
    CompressionFormat, Endianness, Object as _, ObjectSection as _,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64, PF_X, PT_LOAD},
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _},
};

/// The most bytes that the compressed sections of one file grow to.
const DECOMPRESSED_BYTES: u64 = 512 << 20;
/// The machine that this is compiled for.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };

/// How gimli reads the bytes.
pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Keeps the decompressed sections of a file.
#[derive(Default)]
pub struct Storage {
    bytes: OnceCell<Vec<u8>>,
    next: OnceCell<Box<Storage>>,
}

impl Storage {
    fn keep(&self, bytes: Vec<u8>) -> &[u8] {
        let mut last = self;
        while last.bytes.get().is_some() {
            last = last.next.get_or_init(Box::default);
        }
        last.bytes.get_or_init(|| bytes)
    }

    fn total(&self) -> u64 {
        let next = self.next.get().map_or(0, |next| next.total());
        self.bytes.get().map_or(0, |bytes| bytes.len() as u64) + next
    }
}

/// A part of the file that is mapped as code.
#[derive(Clone, Copy)]
struct Segment {
    offset: u64,
    size: u64,
    address: u64,
}

/// A file of this machine.
pub(crate) struct Elf<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) file: ElfFile64<'a, Endianness>,
    storage: &'a Storage,
    code: Vec<Segment>,
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(data: &'a [u8], storage: &'a Storage) -> Option<Self> {
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        if header.e_machine(endian) != MACHINE || endian != Endianness::Little {
            return None;
        }
        let code = header.program_headers(endian, data).ok()?.iter();
        let code = code
            .filter(|segment| segment.p_type(endian) == PT_LOAD)
            .filter(|segment| segment.p_flags(endian) & PF_X != 0)
            .map(|segment| Segment {
                offset: segment.p_offset(endian),
                size: segment.p_filesz(endian),
                address: segment.p_vaddr(endian),
            })
            // Neither the file nor the address space ends within it.
            .filter(|segment| {
                let end = segment.offset.checked_add(segment.size);
                end.is_some_and(|end| end <= data.len() as u64)
                    && segment.address.checked_add(segment.size).is_some()
            })
            .collect();
        let file = ElfFile64::parse(data).ok()?;
        Some(Self { data, file, storage, code })
    }

    pub(crate) fn build_id(&self) -> Option<&'a [u8]> {
        self.file.build_id().ok()?
    }

    /// The address that the file states for code at an offset in it.
    pub(crate) fn address(&self, offset: u64) -> Option<u64> {
        let inside =
            |segment: &&Segment| (segment.offset..segment.offset + segment.size).contains(&offset);
        let segment = self.code.iter().find(inside)?;
        Some(offset - segment.offset + segment.address)
    }

    /// The addresses of all code.
    pub(crate) fn addresses(&self) -> Option<std::ops::Range<u64>> {
        let start = self.code.iter().map(|segment| segment.address).min()?;
        let end = self.code.iter().map(|segment| segment.address + segment.size).max()?;
        Some(start..end)
    }

    pub(crate) fn section_addresses(&self, name: &str) -> Option<std::ops::Range<u64>> {
        let section = self.file.section_by_name(name)?;
        Some(section.address()..section.address().checked_add(section.size())?)
    }

    /// The bytes of a section, decompressed.
    pub(crate) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let section = self.file.section_by_name(name)?;
        let found = section.compressed_data().ok()?;
        if found.format == CompressionFormat::None {
            return Some(found.data).filter(|data| !data.is_empty());
        }
        let size = found.uncompressed_size;
        // zlib shrinks by 1032 at most, and this bounds what zstd may claim.
        let most = (found.data.len() as u64).saturating_mul(2048);
        let room = DECOMPRESSED_BYTES.saturating_sub(self.storage.total());
        if size > room.min(most) {
            return None;
        }
        let bytes = decompress(found.format, found.data, size)?;
        Some(self.storage.keep(bytes))
    }

    pub(crate) fn slice(&self, name: &str) -> Slice<'a> {
        EndianSlice::new(self.section(name).unwrap_or_default(), LittleEndian)
    }
}

fn decompress(format: CompressionFormat, data: &[u8], size: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size as usize).ok()?;
    match format {
        CompressionFormat::Zlib => {
            flate2::read::ZlibDecoder::new(data).take(size).read_to_end(&mut bytes).ok()?;
        }
        CompressionFormat::Zstandard => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(data).ok()?;
            decoder.take(size).read_to_end(&mut bytes).ok()?;
        }
        _ => return None,
    }
    (bytes.len() as u64 == size).then_some(bytes)
}
