//! What is gathered about a copy as soon as it is asked for, while its process may still exist.

use std::{
    collections::HashMap,
    fs::File,
    rc::{Rc, Weak},
    time::Instant,
};

use etxtbsy_trace_common::Stack;

use crate::{
    Copied, Key,
    mappings::{self, Mapping},
    open::{self, Identity},
    resolve::{Backing, Code},
    wire::MAPPINGS,
};

/// The most processes that are tried for one copy.
const PROCESSES: usize = 16;
/// Code of .NET, which maps it twice through a file in memory.
const DOUBLE_MAPPED: &[u8] = b"/memfd:doublemapper";

/// An open file.
pub(crate) struct Mapped {
    pub(crate) file: File,
    pub(crate) identity: Identity,
}

/// An executable mapping, its file if it could be opened, and the path of it.
pub(crate) struct Part {
    mapping: Mapping,
    pub(crate) file: Option<Rc<Mapped>>,
}

impl Part {
    fn is_runtime(&self) -> bool {
        self.mapping.is_anonymous() || self.mapping.path.starts_with(DOUBLE_MAPPED)
    }

    /// The mapping for the helper, with the number that the file has there.
    pub(crate) fn code(&self, number: Option<u64>) -> Code {
        let backing = match number {
            _ if self.is_runtime() => Backing::Runtime,
            Some(number) => Backing::File(number),
            None => Backing::Unknown,
        };
        let Mapping { start, end, offset, .. } = self.mapping;
        Code { start, end, offset, backing }
    }

    pub(crate) fn path(&self) -> String {
        String::from_utf8_lossy(&self.mapping.path).into_owned()
    }
}

/// A copy that can be resolved without its process.
pub(crate) struct Prepared {
    pub(crate) key: Key,
    pub(crate) asked: Instant,
    pub(crate) stack: Box<Stack>,
    pub(crate) parts: Vec<Part>,
    pub(crate) perf_map: Option<File>,
    /// Whether a helper has ended with it.
    pub(crate) is_repeated: bool,
}

/// Shares the files that several waiting copies need.
#[derive(Default)]
pub(crate) struct Files(HashMap<Identity, Weak<Mapped>>);

impl Files {
    /// Reads the mappings of the first process that fits, and opens their files.
    pub(crate) fn prepare(&mut self, copied: Copied, asked: Instant) -> Option<Prepared> {
        let Copied { key, stack, pids } = copied;
        let code = |pid: &u32| {
            let mappings = mappings::read(*pid).ok()?;
            Some((*pid, mappings::of_copy(&mappings, &stack, MAPPINGS)?))
        };
        let (pid, mappings) = pids.iter().take(PROCESSES).find_map(code)?;
        let parts: Vec<Part> = mappings
            .into_iter()
            .map(|mapping| {
                let file = if mapping.inode == 0 { None } else { self.open(pid, &mapping) };
                Part { mapping, file }
            })
            .collect();
        let is_runtime = parts.iter().any(Part::is_runtime);
        let perf_map = if is_runtime { open::perf_map(pid).ok() } else { None };
        Some(Prepared { key, asked, stack, parts, perf_map, is_repeated: false })
    }

    fn open(&mut self, pid: u32, mapping: &Mapping) -> Option<Rc<Mapped>> {
        let (file, identity) = open::mapped(pid, mapping).ok()?;
        if let Some(shared) = self.0.get(&identity).and_then(Weak::upgrade) {
            return Some(shared);
        }
        self.0.retain(|_, file| file.strong_count() > 0);
        let mapped = Rc::new(Mapped { file, identity });
        self.0.insert(identity, Rc::downgrade(&mapped));
        Some(mapped)
    }
}
