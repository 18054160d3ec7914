//! The initramfs: busybox, the tests, and their libraries.

use std::{
    fs::{self, File, Permissions},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    kernel::Kernel,
    packages::Packages,
    suite::{self, Suite},
};
use crate::command::{command, output};

/// The first process.
const INIT: &str = include_str!("init");

/// Programs that the tests name or copy. All others come from busybox.
const PROGRAMS: [&str; 3] = ["/bin/sh", "/bin/true", "/bin/cat"];

/// Their packages and paths in Debian.
const PACKAGED: [(&str, &str); 3] =
    [("dash", "bin/dash"), ("coreutils", "bin/true"), ("coreutils", "bin/cat")];

/// Directories in which init mounts and writes.
const DIRECTORIES: [&str; 12] = [
    "dev",
    "etc",
    "proc",
    "root",
    "sys",
    "tmp",
    "var/tmp",
    "vm/modules",
    "bin",
    "lib",
    "lib64",
    "run",
];

/// The users that the tests need.
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The root directory of the image.
pub(super) struct Image {
    root: PathBuf,
    /// The busybox that packs it.
    busybox: PathBuf,
}

impl Image {
    /// Creates everything except a kernel's modules. `own` has the packages of this machine's architecture.
    pub(super) fn new(
        root: PathBuf,
        own: &Packages,
        packages: &Packages,
        suite: &Suite,
        filters: &[String],
    ) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for directory in DIRECTORIES {
            fs::create_dir_all(root.join(directory))?;
        }
        let image = Self { root, busybox: busybox(own)? };
        image.write("init", INIT)?;
        fs::set_permissions(image.root.join("init"), Permissions::from_mode(0o755))?;
        image.write("etc/passwd", PASSWD)?;
        image.write("etc/group", GROUP)?;
        image.write("vm/selection", &lines(&suite::selection(filters)))?;
        image.write("vm/environment", &lines(&suite.environment))?;
        image.write("vm/tests", &lines(&suite.lines()))?;
        for directory in &suite.directories {
            fs::create_dir_all(image.inside(directory))?;
        }
        image.copy(&busybox(packages)?, Path::new("/bin/busybox"))?;
        if packages.arch.is_own() {
            // This machine's own programs, so that they are the same as in its live tests.
            for program in PROGRAMS.map(Path::new).into_iter().chain(suite.programs()) {
                image.copy(program, program)?;
                for library in libraries(program)? {
                    image.copy(&library, &library)?;
                }
            }
        } else {
            image.copy_packaged(packages)?;
            for program in suite.programs() {
                image.copy(program, program)?;
            }
        }
        Ok(image)
    }

    /// Copies programs of another architecture with their libraries.
    fn copy_packaged(&self, packages: &Packages) -> Result<()> {
        for (program, (package, path)) in PROGRAMS.iter().zip(PACKAGED) {
            let from = packages.unpacked(&[packages.oldest(package)?])?.join(path);
            self.copy(&from, Path::new(program))?;
        }
        let libc = packages.unpacked(&[packages.oldest("libc6")?])?;
        for library in packages.arch.libraries() {
            self.copy(&libc.join(library), &Path::new("/").join(library))?;
        }
        Ok(())
    }

    /// Packs the image with a kernel's modules; init skips the tests in `ended`.
    pub(super) fn pack(&self, kernel: &Kernel, ended: &[String], archive: &Path) -> Result<()> {
        self.write("vm/ended", &lines(ended))?;
        let modules = self.root.join("vm/modules");
        fs::remove_dir_all(&modules)?;
        fs::create_dir(&modules)?;
        let order = kernel.copy_modules(kernel.arch.modules(), &modules, &self.busybox)?;
        self.write("vm/modules/order", &lines(&order))?;

        let names = command("find").current_dir(&self.root).output()?.stdout;
        let mut cpio = command(&self.busybox)
            .args(["cpio", "--create", "--format", "newc", "--owner", "0:0"])
            .current_dir(&self.root)
            .stdin(Stdio::piped())
            .stdout(File::create(archive)?)
            .spawn()?;
        let written = cpio.stdin.take().context("no stdin")?.write_all(&names);
        ensure!(cpio.wait()?.success(), "`busybox cpio` failed");
        Ok(written?)
    }

    /// The path on this machine of a path in the virtual machine.
    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.root.join(name), text).with_context(|| name.to_owned())
    }

    /// Copies a file with its mode, unless the copy exists; follows a link.
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let to = self.inside(to);
        if !to.exists() {
            fs::create_dir_all(to.parent().context("the path has no directory")?)?;
            fs::copy(from, &to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        Ok(())
    }
}

/// Debian's static busybox.
fn busybox(packages: &Packages) -> Result<PathBuf> {
    let root = packages.unpacked(&[packages.oldest("busybox-static")?])?;
    ["bin/busybox", "usr/bin/busybox"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("no busybox in {}", root.display()))
}

/// A program's shared libraries and loader; none for a static program, and for what is none.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut magic = Vec::new();
    File::open(program)?.take(4).read_to_end(&mut magic)?;
    if magic != b"\x7fELF" {
        return Ok(Vec::new());
    }
    let text = output(command("ldd").arg(program))
        .with_context(|| format!("`ldd {}` failed", program.display()))?;
    Ok(paths(&text))
}

/// The paths in the output of `ldd`.
fn paths(ldd: &str) -> Vec<PathBuf> {
    // "	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f01)"
    // "	/lib64/ld-linux-x86-64.so.2 (0x00007f02)"
    let path = |line: &str| {
        let (path, _address) = line.trim().rsplit_once(" (")?;
        let path = path.rsplit_once(" => ").map_or(path, |(_name, path)| path);
        path.starts_with('/').then(|| path.into())
    };
    ldd.lines().filter_map(path).collect()
}

/// The strings as lines.
fn lines(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_parsed_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007f03)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f01)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f02)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths(text), expected.map(PathBuf::from));
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
