//! Where the kernel's structures have their fields, from its BTF.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use anyhow::Context as _;
use btf_rs::{Backend, Btf, Struct, Type};

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

/// A kernel, by its BTF.
pub struct Kernel {
    btf: Btf,
    /// What was looked for, which takes a millisecond each.
    structures: RefCell<HashMap<String, Option<Rc<Struct>>>>,
}

/// Reads the BTF of the running kernel.
pub fn running_kernel() -> anyhow::Result<Kernel> {
    Kernel::from_file(VMLINUX)
}

impl Kernel {
    /// Reads a file: where that can be mapped, as the kernel's own from 6.16 on, only what is asked
    /// for.
    pub(super) fn from_file(path: &str) -> anyhow::Result<Self> {
        let btf = Btf::from_file_with_backend(path, Backend::Mmap)
            .or_else(|_| Btf::from_file(path))
            .with_context(|| format!("cannot read {path}"))?;
        Ok(Self { btf, structures: RefCell::default() })
    }

    /// Reads the BTF of a module of the running kernel (CONFIG_DEBUG_INFO_BTF_MODULES), whose types are
    /// counted from those of the kernel itself.
    pub(super) fn module(&self, name: &str) -> anyhow::Result<Self> {
        let path = format!("/sys/kernel/btf/{name}");
        let btf = Btf::from_split_file(&path, &self.btf)
            .with_context(|| format!("cannot read {path}"))?;
        Ok(Self { btf, structures: RefCell::default() })
    }

    fn structure(&self, name: &str) -> Option<Rc<Struct>> {
        let mut known = self.structures.borrow_mut();
        let find = || {
            self.btf.resolve_types_by_name(name).ok()?.into_iter().find_map(|ty| match ty {
                Type::Struct(found) if found.size() > 0 => Some(Rc::new(found)),
                // `Node` of binfmt_misc has no other name.
                Type::Typedef(alias) => match self.btf.resolve_chained_type(&alias) {
                    Ok(Type::Struct(found)) if found.size() > 0 => Some(Rc::new(found)),
                    _ => None,
                },
                _ => None,
            })
        };
        known.entry(name.to_owned()).or_insert_with(find).clone()
    }

    /// Whether it has a tracepoint of that name: for each, its BTF has a type of callback
    /// (`btf_trace_…`, include/trace/bpf_probe.h).
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.has(&format!("btf_trace_{name}"))
    }

    /// Whether it has an iterator of that name (`DEFINE_BPF_ITER_FUNC`, include/linux/bpf.h).
    #[must_use]
    pub fn has_iterator(&self, name: &str) -> bool {
        self.has(&format!("bpf_iter_{name}"))
    }

    /// The BTF id of a function.
    pub(super) fn function_id(&self, name: &str) -> Option<u32> {
        self.id(name, |ty| matches!(ty, Type::Func(_)))
    }

    /// The BTF id of a struct.
    pub(super) fn structure_id(&self, name: &str) -> Option<u32> {
        self.id(name, |ty| matches!(ty, Type::Struct(found) if found.size() > 0))
    }

    fn id(&self, name: &str, is_it: impl Fn(&Type) -> bool) -> Option<u32> {
        let ids = self.btf.resolve_ids_by_name(name).ok()?;
        ids.into_iter().find(|id| self.btf.resolve_type_by_id(*id).is_ok_and(|ty| is_it(&ty)))
    }

    fn has(&self, name: &str) -> bool {
        self.btf.resolve_ids_by_name(name).is_ok_and(|ids| !ids.is_empty())
    }
}

impl Layout for Kernel {
    fn size(&self, structure: &str) -> Option<u32> {
        u32::try_from(self.structure(structure)?.size()).ok()
    }

    fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let mut found = None;
        members(&self.btf, &*self.structure(structure)?, 0, &mut |name, bits| {
            if name == field && found.is_none() {
                found = Some(bits / 8);
            }
        });
        found
    }

    fn pointers(&self, tracepoint: &str) -> Option<Vec<bool>> {
        let btf = &self.btf;
        let types = btf.resolve_types_by_name(&format!("btf_trace_{tracepoint}")).ok()?;
        let callback = types.into_iter().find_map(|ty| match ty {
            Type::Typedef(found) => Some(found),
            _ => None,
        })?;
        let Type::Ptr(pointer) = btf.resolve_chained_type(&callback).ok()? else { return None };
        let Type::FuncProto(callback) = btf.resolve_chained_type(&pointer).ok()? else {
            return None;
        };
        let is_pointer = |parameter| {
            btf.resolve_chained_type(parameter).is_ok_and(|ty| matches!(ty, Type::Ptr(_)))
        };
        // The first is the data that the callback is registered with.
        Some(callback.parameters.iter().skip(1).map(is_pointer).collect())
    }

    fn has_function(&self, name: &str) -> bool {
        let types = self.btf.resolve_types_by_name(name);
        types.is_ok_and(|types| types.iter().any(|ty| matches!(ty, Type::Func(_))))
    }
}

/// Tells of each member of a struct its name and offset in bits, of anonymous ones those within.
fn members(btf: &Btf, structure: &Struct, at: u32, found: &mut impl FnMut(&str, u32)) {
    for member in &structure.members {
        let name = btf.resolve_name(member).unwrap_or_default();
        let bits = at + member.bit_offset();
        // `f_u` of 5.10's struct file has a name, but serves as an anonymous union.
        if (name.is_empty() || name == "f_u")
            && let Ok(Type::Struct(inner) | Type::Union(inner)) = btf.resolve_chained_type(member)
        {
            members(btf, &inner, bits, found);
        } else {
            found(&name, bits);
        }
    }
}

/// An extract of a kernel's BTF as text, for tests: `struct NAME SIZE`, and of each field a line
/// ` OFFSET NAME`; `tracepoint NAME` and of each argument whether it is a pointer; `function NAME`.
#[cfg(test)]
pub(super) mod extract {
    use std::{
        cell::RefCell,
        collections::{BTreeSet, HashMap, HashSet},
        fmt::Write as _,
    };

    use super::{Kernel, Layout, members};

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
        kernel: &'a Kernel,
        structures: RefCell<BTreeSet<String>>,
        tracepoints: RefCell<BTreeSet<String>>,
        functions: RefCell<BTreeSet<String>>,
    }

    impl<'a> Asked<'a> {
        pub(crate) fn of(kernel: &'a Kernel) -> Self {
            let (structures, tracepoints, functions) = <_>::default();
            Self { kernel, structures, tracepoints, functions }
        }

        /// What was asked for, of structures all fields.
        pub(crate) fn extract(&self) -> String {
            let mut text = String::new();
            for name in self.structures.borrow().iter() {
                let Some(found) = self.kernel.structure(name) else { continue };
                writeln!(text, "struct {name} {}", found.size()).unwrap();
                members(&self.kernel.btf, &found, 0, &mut |field, bits| {
                    if !field.is_empty() {
                        writeln!(text, " {} {field}", bits / 8).unwrap();
                    }
                });
            }
            for name in self.tracepoints.borrow().iter() {
                let Some(kinds) = self.kernel.pointers(name) else { continue };
                let kind = |pointer| if pointer { " pointer" } else { " number" };
                let kinds: String = kinds.into_iter().map(kind).collect();
                writeln!(text, "tracepoint {name}{kinds}").unwrap();
            }
            for name in self.functions.borrow().iter().filter(|name| self.kernel.has_function(name))
            {
                writeln!(text, "function {name}").unwrap();
            }
            text
        }
    }

    impl Layout for Asked<'_> {
        fn size(&self, structure: &str) -> Option<u32> {
            self.structures.borrow_mut().insert(structure.to_owned());
            self.kernel.size(structure)
        }

        fn offset(&self, structure: &str, field: &str) -> Option<u32> {
            self.structures.borrow_mut().insert(structure.to_owned());
            self.kernel.offset(structure, field)
        }

        fn pointers(&self, tracepoint: &str) -> Option<Vec<bool>> {
            self.tracepoints.borrow_mut().insert(tracepoint.to_owned());
            self.kernel.pointers(tracepoint)
        }

        fn has_function(&self, name: &str) -> bool {
            self.functions.borrow_mut().insert(name.to_owned());
            self.kernel.has_function(name)
        }
    }
}
