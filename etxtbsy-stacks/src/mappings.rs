//! /proc/PID/maps: the executable mappings that matter for a copy.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
};

use etxtbsy_trace_common::Stack;

/// The bits of an address in user space; pointer authentication keeps its code in the others.
pub(crate) const ADDRESS_MASK: u64 =
    if cfg!(target_arch = "aarch64") { (1 << 48) - 1 } else { u64::MAX };

/// One line of maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) is_writable: bool,
    pub(crate) is_executable: bool,
    pub(crate) offset: u64,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    /// 0 if no file is mapped.
    pub(crate) inode: u64,
    /// As the line has it.
    pub(crate) path: Vec<u8>,
}

impl Mapping {
    /// Reads a line by bytes: procfs rejects all lines if one path is not UTF-8.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut field = || str::from_utf8(fields.next()?).ok();
        let (start, end) = field()?.split_once('-')?;
        let permissions = field()?;
        let offset = field()?;
        let (major, minor) = field()?.split_once(':')?;
        let inode = field()?;
        let path = fields.next().unwrap_or_default();
        Some(Self {
            start: hexadecimal(start)?,
            end: hexadecimal(end)?,
            is_writable: permissions.as_bytes().get(1) == Some(&b'w'),
            is_executable: permissions.as_bytes().get(2) == Some(&b'x'),
            offset: hexadecimal(offset)?,
            device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
            inode: inode.parse().ok()?,
            path: path.strip_suffix(b"\n").unwrap_or(path).trim_ascii_start().to_vec(),
        })
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Whether the code in it was made at run time. Mappings with other names belong to the kernel, such as the vDSO.
    pub(crate) fn is_anonymous(&self) -> bool {
        let names: [&[u8]; 4] = [b"", b"[heap]", b"[stack]", b"//anon"];
        self.inode == 0 && (names.contains(&&*self.path) || self.path.starts_with(b"[anon"))
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// The mappings of a process.
pub(crate) fn read(pid: u32) -> io::Result<Vec<Mapping>> {
    let mut file = BufReader::new(File::open(format!("/proc/{pid}/maps"))?);
    let (mut mappings, mut line) = (Vec::new(), Vec::new());
    while file.read_until(b'\n', &mut line)? > 0 {
        mappings.extend(Mapping::parse(&line));
        line.clear();
    }
    Ok(mappings)
}

/// The executable mappings that the frames of a copy can be in: those of the program counter and of each word of the
/// stack, which includes the return addresses. `None` if these are not the mappings of the copied thread: a process that
/// has executed another program meanwhile has its stack elsewhere.
pub(crate) fn of_copy(mappings: &[Mapping], stack: &Stack, most: usize) -> Option<Vec<Mapping>> {
    let is_stack = |mapping: &Mapping| mapping.is_writable && mapping.contains(stack.sp);
    mappings.iter().find(|mapping| is_stack(mapping))?;
    // The lines are sorted by address.
    let code: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.is_executable).collect();
    let find = |address: u64| {
        let at = code.partition_point(|mapping| mapping.end <= address);
        code.get(at).filter(|mapping| mapping.contains(address)).map(|_| at)
    };
    let mut used = vec![find(stack.ip)?];
    let bytes = &stack.bytes[..(stack.len as usize).min(stack.bytes.len())];
    let words = bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
    for word in [stack.lr].into_iter().chain(words) {
        // A return address can be one past the end of a mapping.
        let Some(at) = find((word & ADDRESS_MASK).wrapping_sub(1)) else { continue };
        if !used.contains(&at) {
            used.push(at);
        }
    }
    // The innermost frames matter most.
    used.truncate(most);
    Some(used.into_iter().map(|at| code[at].clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(line: &str) -> Mapping {
        Mapping::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn lines_are_parsed_by_bytes() {
        let line = b"7f00-8000 r-xp 00001000 fe:01 17                  /a b\xff (deleted)\n";
        let parsed = Mapping::parse(line).unwrap();
        assert_eq!((parsed.start, parsed.end, parsed.offset), (0x7f00, 0x8000, 0x1000));
        assert_eq!((parsed.device, parsed.inode), ((0xfe, 1), 17));
        assert!(parsed.is_executable && !parsed.is_writable);
        assert_eq!(parsed.path, b"/a b\xff (deleted)");
        assert_eq!(Mapping::parse(b"7f00-8000 r-xp"), None);
    }

    #[test]
    fn only_unnamed_mappings_are_anonymous() {
        for (line, expected) in [
            ("1000-2000 rwxp 00000000 00:00 0 \n", true),
            ("1000-2000 rwxp 00000000 00:00 0            [anon:v8]\n", true),
            ("1000-2000 r-xp 00000000 00:00 0            [vdso]\n", false),
            ("1000-2000 r-xp 00000000 00:01 4            /memfd:x (deleted)\n", false),
        ] {
            assert_eq!(mapping(line).is_anonymous(), expected, "{line}");
        }
    }

    #[test]
    fn a_copy_uses_the_code_that_its_words_point_to() {
        let mappings = [
            mapping("1000-2000 r-xp 00000000 fe:01 1 /used\n"),
            mapping("2000-3000 r-xp 00000000 fe:01 2 /unused\n"),
            mapping("3000-4000 r-xp 00000000 fe:01 3 /innermost\n"),
            mapping("8000-9000 rw-p 00000000 00:00 0 [stack]\n"),
        ];
        let mut stack = crate::resolve::empty_stack();
        (stack.ip, stack.sp, stack.len) = (0x3010, 0x8800, 16);
        stack.bytes[8..16].copy_from_slice(&0x2000_u64.to_ne_bytes());
        let used = of_copy(&mappings, &stack, 9).unwrap();
        assert_eq!(used, [mappings[2].clone(), mappings[0].clone()]);
        assert_eq!(of_copy(&mappings, &stack, 1).unwrap().len(), 1);
        // Another program: its stack is elsewhere.
        stack.sp = 0x7000;
        assert_eq!(of_copy(&mappings, &stack, 9), None);
        // The program counter is in no code.
        (stack.sp, stack.ip) = (0x8800, 0x5000);
        assert_eq!(of_copy(&mappings, &stack, 9), None);
    }
}
