//! Compiles the eBPF programs.

use std::{env, fs, path::Path};

use anyhow::Context as _;
use object::build::elf::{Builder, SectionData};

use crate::{CASTING, PLAIN, toolchain};

/// The crate of the eBPF programs, beside this one.
pub(crate) const SOURCES: &str = "../etxtbsy-trace-ebpf";

/// Compiles and strips both objects.
pub(crate) fn compile(out_dir: &Path) -> anyhow::Result<()> {
    // aya-build adds the crate itself.
    for more in ["../etxtbsy-trace-common", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={more}");
    }
    let toolchain = toolchain::find()
        .context("cannot look for Rust toolchains")?
        .context("no Rust toolchain here has core's sources, which the eBPF programs need")?;
    // <target>/<profile>/build/<package>/out
    let target_dir = out_dir.ancestors().nth(4).context("OUT_DIR is no place of cargo's")?;
    // SAFETY: nothing has started a thread in this process yet.
    unsafe {
        // Lets a stable compiler build `core`.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("PATH", toolchain::path_with_cargo_bin());
        // Each profile and each of clippy's runs has its own OUT_DIR, where aya-build would build anew.
        env::set_var("CARGO_BUILD_BUILD_DIR", target_dir.join("ebpf"));
        // aya-build turns all that this inner cargo says into warnings: only those of the compiler.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCES);
    let build = |features| {
        let package = aya_build::Package {
            name: "etxtbsy-trace-ebpf",
            root_dir: sources.to_str().context("the path of the repository is not UTF-8")?,
            features,
            ..Default::default()
        };
        aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain.name))
            .context("the eBPF programs do not build, see above; if bpf-linker is what is missing")
    };
    // Both builds have the same name.
    let object = out_dir.join(PLAIN);
    build(&["cast"])?;
    strip(&object, &out_dir.join(CASTING))?;
    build(&[])?;
    strip(&object, &object)
}

/// Writes an object file without what debuggers read, two thirds of it: the kernel reads its BTF alone.
fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    let strip = || -> anyhow::Result<()> {
        let bytes = fs::read(from)?;
        let mut object = Builder::read(&*bytes)?;
        for section in &mut object.sections {
            let name = section.name.strip_prefix(b".rel").unwrap_or(&section.name);
            section.delete |= name.starts_with(b".debug_");
        }
        object.delete_orphans();
        // LLVM has one table for the names of sections and symbols.
        let names = object.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
        let mut stripped = Vec::new();
        object.write(&mut stripped)?;
        Ok(fs::write(to, stripped)?)
    };
    strip().with_context(|| format!("cannot strip {}", from.display()))
}
