//! Where the kernel's structures have their fields, as its BTF tells.

use anyhow::Context as _;
use btf_rs::{Btf, Struct, Type};

/// Where the kernel shows its BTF (CONFIG_DEBUG_INFO_BTF).
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What is asked of a kernel's types.
pub trait Layout {
    /// The size of a struct in bytes; `None` if there is none of that name.
    fn size(&self, structure: &str) -> Option<u32>;

    /// The offset in bytes of a struct's field, those of anonymous members included.
    fn offset(&self, structure: &str, field: &str) -> Option<u32>;

    /// Of each argument of a tracepoint, whether it is a pointer.
    fn pointers(&self, tracepoint: &str) -> Option<Vec<bool>>;

    /// Whether there is a function of that name.
    fn has_function(&self, name: &str) -> bool;
}

/// Reads the BTF of the running kernel.
pub fn running_kernel() -> anyhow::Result<Btf> {
    Btf::from_file(VMLINUX).with_context(|| format!("cannot read {VMLINUX}"))
}

impl Layout for Btf {
    fn size(&self, structure: &str) -> Option<u32> {
        u32::try_from(self::structure(self, structure)?.size()).ok()
    }

    fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let mut found = None;
        members(self, &self::structure(self, structure)?, 0, &mut |name, bits| {
            if name == field && found.is_none() {
                found = Some(bits / 8);
            }
        });
        found
    }

    fn pointers(&self, tracepoint: &str) -> Option<Vec<bool>> {
        let types = self.resolve_types_by_name(&format!("btf_trace_{tracepoint}")).ok()?;
        let callback = types.into_iter().find_map(|ty| match ty {
            Type::Typedef(found) => Some(found),
            _ => None,
        })?;
        let Type::Ptr(pointer) = self.resolve_chained_type(&callback).ok()? else { return None };
        let Type::FuncProto(callback) = self.resolve_chained_type(&pointer).ok()? else {
            return None;
        };
        let is_pointer = |parameter| {
            self.resolve_chained_type(parameter).is_ok_and(|ty| matches!(ty, Type::Ptr(_)))
        };
        // The first is the data that the callback is registered with.
        Some(callback.parameters.iter().skip(1).map(is_pointer).collect())
    }

    fn has_function(&self, name: &str) -> bool {
        let types = self.resolve_types_by_name(name);
        types.is_ok_and(|types| types.iter().any(|ty| matches!(ty, Type::Func(_))))
    }
}

fn structure(btf: &Btf, name: &str) -> Option<Struct> {
    btf.resolve_types_by_name(name).ok()?.into_iter().find_map(|ty| match ty {
        Type::Struct(found) if found.size() > 0 => Some(found),
        _ => None,
    })
}

/// Tells of each member of a struct its name and offset in bits, of anonymous ones those within.
fn members(btf: &Btf, structure: &Struct, at: u32, tell: &mut impl FnMut(&str, u32)) {
    for member in &structure.members {
        let name = btf.resolve_name(member).unwrap_or_default();
        let bits = at + member.bit_offset();
        // `f_u` of 5.10's struct file has a name, but serves as an anonymous union.
        if (name.is_empty() || name == "f_u")
            && let Ok(Type::Struct(inner) | Type::Union(inner)) = btf.resolve_chained_type(member)
        {
            members(btf, &inner, bits, tell);
        } else {
            tell(&name, bits);
        }
    }
}

/// What a kernel's BTF tells, as text, for tests: `struct NAME SIZE`, and of each field a line
/// ` OFFSET NAME`; `tracepoint NAME` and of each argument whether it is a pointer; `function NAME`.
#[cfg(test)]
pub(super) mod extract {
    use std::{
        cell::RefCell,
        collections::{BTreeSet, HashMap, HashSet},
        fmt::Write as _,
    };

    use super::{Btf, Layout, members, structure};

    /// The text, read.
    #[derive(Default)]
    pub(crate) struct Extract {
        sizes: HashMap<String, u32>,
        offsets: HashMap<(String, String), u32>,
        tracepoints: HashMap<String, Vec<bool>>,
        functions: HashSet<String>,
    }

    impl Extract {
        pub(crate) fn parse(text: &str) -> Self {
            let mut extract = Self::default();
            let mut within = "";
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                match line.split(' ').collect::<Vec<_>>()[..] {
                    ["struct", name, size] => {
                        within = name;
                        extract.sizes.insert(name.to_owned(), size.parse().unwrap());
                    }
                    ["", offset, field] => {
                        let key = (within.to_owned(), field.to_owned());
                        extract.offsets.entry(key).or_insert(offset.parse().unwrap());
                    }
                    ["tracepoint", name, ref kinds @ ..] => {
                        let kinds = kinds.iter().map(|kind| *kind == "pointer").collect();
                        extract.tracepoints.insert(name.to_owned(), kinds);
                    }
                    ["function", name] => {
                        extract.functions.insert(name.to_owned());
                    }
                    _ => panic!("not a line of an extract: {line}"),
                }
            }
            extract
        }
    }

    impl Layout for Extract {
        fn size(&self, structure: &str) -> Option<u32> {
            self.sizes.get(structure).copied()
        }

        fn offset(&self, structure: &str, field: &str) -> Option<u32> {
            self.offsets.get(&(structure.to_owned(), field.to_owned())).copied()
        }

        fn pointers(&self, tracepoint: &str) -> Option<Vec<bool>> {
            self.tracepoints.get(tracepoint).cloned()
        }

        fn has_function(&self, name: &str) -> bool {
            self.functions.contains(name)
        }
    }

    /// Notes what is asked of a BTF.
    pub(crate) struct Asked<'a> {
        btf: &'a Btf,
        structures: RefCell<BTreeSet<String>>,
        tracepoints: RefCell<BTreeSet<String>>,
        functions: RefCell<BTreeSet<String>>,
    }

    impl<'a> Asked<'a> {
        pub(crate) fn of(btf: &'a Btf) -> Self {
            let (structures, tracepoints, functions) = <_>::default();
            Self { btf, structures, tracepoints, functions }
        }

        /// What was asked for, of structures all fields.
        pub(crate) fn extract(&self) -> String {
            let mut text = String::new();
            for name in self.structures.borrow().iter() {
                let Some(found) = structure(self.btf, name) else { continue };
                writeln!(text, "struct {name} {}", found.size()).unwrap();
                members(self.btf, &found, 0, &mut |field, bits| {
                    if !field.is_empty() {
                        writeln!(text, " {} {field}", bits / 8).unwrap();
                    }
                });
            }
            for name in self.tracepoints.borrow().iter() {
                let Some(kinds) = self.btf.pointers(name) else { continue };
                let kind = |pointer| if pointer { " pointer" } else { " number" };
                let kinds: String = kinds.into_iter().map(kind).collect();
                writeln!(text, "tracepoint {name}{kinds}").unwrap();
            }
            for name in self.functions.borrow().iter().filter(|name| self.btf.has_function(name)) {
                writeln!(text, "function {name}").unwrap();
            }
            text
        }
    }

    impl Layout for Asked<'_> {
        fn size(&self, structure: &str) -> Option<u32> {
            self.structures.borrow_mut().insert(structure.to_owned());
            self.btf.size(structure)
        }

        fn offset(&self, structure: &str, field: &str) -> Option<u32> {
            self.structures.borrow_mut().insert(structure.to_owned());
            self.btf.offset(structure, field)
        }

        fn pointers(&self, tracepoint: &str) -> Option<Vec<bool>> {
            self.tracepoints.borrow_mut().insert(tracepoint.to_owned());
            self.btf.pointers(tracepoint)
        }

        fn has_function(&self, name: &str) -> bool {
            self.functions.borrow_mut().insert(name.to_owned());
            self.btf.has_function(name)
        }
    }
}
