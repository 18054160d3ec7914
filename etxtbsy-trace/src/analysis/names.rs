//! Names without what programs make up: random ends, ids, numbers.

/// How many characters of a name count.
const NAME: usize = 200;
/// Directories in which programs make up names.
const TEMPORARY: [&str; 5] = ["tmp", "temp", "shm", "T", "Temp"];

/// The name of a program: its digits count, only what a program made up does not.
pub(super) fn program(name: &str) -> String {
    let name: String = name.chars().take(NAME).collect();
    if let Some(folded) = temporary(&name) {
        return folded;
    }
    words(&name, |word| {
        let digit = word.bytes().any(|byte| byte.is_ascii_digit());
        let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
        (digit && (hex && word.len() >= 8 || word.len() >= 16)).then(|| "N".to_owned())
    })
}

/// The shape of a file's directory: [`pattern`] for each component, and nothing below one that a
/// program made up.
#[must_use]
pub fn directory(path: &str) -> String {
    let Some((directory, _)) = path.rsplit_once('/') else { return String::new() };
    let skipped = directory.chars().count().saturating_sub(NAME);
    let kept: String = directory.chars().skip(skipped).collect();
    let mut shape: Vec<String> = Vec::new();
    let mut is_temporary = false;
    for name in kept.split('/') {
        if is_temporary && is_made_up(name) {
            shape.push("*".to_owned());
            break;
        }
        let folded = pattern(name);
        let random = temporary(name).is_some() || program(name) != name;
        shape.push(folded);
        if random {
            break;
        }
        is_temporary |= TEMPORARY.contains(&name);
    }
    shape.join("/")
}

/// Whether a name in a temporary directory looks made up: digits, mixed case, or an end as mkdtemp
/// makes it.
fn is_made_up(name: &str) -> bool {
    let digit = name.bytes().any(|byte| byte.is_ascii_digit());
    let mixed = name
        .as_bytes()
        .windows(2)
        .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    let end = name.rsplit(['-', '.']).next().filter(|end| end.len() < name.len());
    let random =
        |end: &str| end.len() >= 6 && end.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    digit || mixed || temporary(name).is_some() || end.is_some_and(random)
}

/// A name with `N` for each run of digits, and for what looks made up by a program: hexadecimal
/// ids, long mixtures of letters and digits, the random end of `tmp.Ab3dE`.
#[must_use]
pub fn pattern(name: &str) -> String {
    // The end of a path says more than its beginning.
    let skipped = name.chars().count().saturating_sub(NAME);
    let kept: String = name.chars().skip(skipped).collect();
    let components: Vec<String> = kept.split('/').map(component).collect();
    components.join("/")
}

/// [`pattern`] for one component of a path.
fn component(name: &str) -> String {
    if let Some(folded) = temporary(name) {
        return folded;
    }
    words(name, |word| {
        let digit = word.bytes().any(|byte| byte.is_ascii_digit());
        let hex = word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digit && (hex || word.len() >= 16) {
            return Some("N".to_owned());
        }
        let mut out = String::new();
        let mut last = ' ';
        for c in word.chars() {
            if !c.is_ascii_digit() {
                out.push(c);
            } else if !last.is_ascii_digit() {
                out.push('N');
            }
            last = c;
        }
        Some(out)
    })
}

/// A name that mkstemp made from `tmpXXXXXX`, `.tmpXXXXXX` or `tmp.XXXXXX`, folded.
fn temporary(name: &str) -> Option<String> {
    let bare = name.strip_prefix('.').unwrap_or(name);
    let random = bare.strip_prefix("tmp")?;
    let random = random.strip_prefix(['.', '-', '_']).unwrap_or(random);
    let made_up = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // mkstemp makes six characters, and nobody makes fewer.
    let fits = random.len() >= 6 && random.chars().all(made_up);
    fits.then(|| format!("{}N", &name[..name.len() - random.len()]))
}

/// A name, each of its words of letters and digits as `fold` has it.
fn words(name: &str, fold: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    for run in name.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = run.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        out += &fold(word).unwrap_or_else(|| word.to_owned());
        out += &run[word.len()..];
    }
    out
}

/// What names have in common: `/tmp/hook-*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How they all begin and end, the latter only where they differ.
    common: Option<(String, Option<String>)>,
}

impl Shape {
    /// Adds a name.
    pub fn add(&mut self, name: &str) {
        let Some((begin, end)) = &mut self.common else {
            self.common = Some((name.to_owned(), None));
            return;
        };
        if end.is_none() && begin == name {
            return;
        }
        let whole = begin.clone();
        let last = end.as_deref().unwrap_or(&whole);
        let same = begin.chars().zip(name.chars()).take_while(|(one, other)| one == other);
        let length = same.map(|(c, _)| c.len_utf8()).sum();
        // What begins them is not what ends them as well.
        let rest = &name[length..];
        let known = if end.is_none() { &last[length..] } else { last };
        let same = known.chars().rev().zip(rest.chars().rev());
        let tail: usize =
            same.take_while(|(one, other)| one == other).map(|(c, _)| c.len_utf8()).sum();
        *end = Some(known[known.len() - tail..].to_owned());
        begin.truncate(length);
    }

    /// In one piece; `None` if there was no name.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let (begin, end) = self.common.as_ref()?;
        Some(end.as_ref().map_or_else(|| begin.clone(), |end| format!("{begin}*{end}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_chance_is_folded() {
        let cases = [
            ("/var/tmp/fork-exec-17", "/var/tmp/fork-exec-N"),
            ("worker-3", "worker-N"),
            ("tool1234.sh", "toolN.sh"),
            ("/usr/bin/e2fsck", "/usr/bin/eNfsck"),
            ("/tmp/.tmpAbCdEf/fake", "/tmp/.tmpN/fake"),
            ("/tmp/tmp.XyZabcDEFg", "/tmp/tmp.N"),
            ("/tmp/tmpab_cdefg/x", "/tmp/tmpN/x"),
            ("/tmp/tmpfs/x", "/tmp/tmpfs/x"),
            ("target/debug/deps/foo-1a2b3c4d5e6f7a8b", "target/debug/deps/foo-N"),
            ("550e8400-e29b-41d4-a716-446655440000", "N-N-N-N-N"),
            ("/tmp/go-build2718281828/b001/exe/a.out", "/tmp/go-buildN/N/exe/a.out"),
            ("/nix/store/0c9q4h2vxkfzj8d7-hello", "/nix/store/N-hello"),
            ("/bin/bash", "/bin/bash"),
            ("ファイル2", "ファイルN"),
            ("", ""),
        ];
        for (name, folded) in cases {
            assert_eq!(pattern(name), folded);
        }
        assert_eq!(pattern(&"x".repeat(5000)).len(), NAME);
    }

    #[test]
    fn programs_keep_their_digits() {
        let cases = [
            ("e2fsck", "e2fsck"),
            ("python3.11", "python3.11"),
            ("7z", "7z"),
            ("worker-3", "worker-3"),
            ("foo-1a2b3c4d5e6f7a8b", "foo-N"),
            ("tmpab_cdefg", "tmpN"),
            ("deadbeef", "deadbeef"),
        ];
        for (name, folded) in cases {
            assert_eq!(program(name), folded);
        }
    }

    #[test]
    fn a_directory_that_a_program_made_up_has_no_name() {
        let cases = [
            ("/tmp/hook-abcdefgh", "/tmp"),
            ("/tmp/hook-ab3_efgh/tool", "/tmp/*"),
            ("/tmp/jvm1234567890123456789/tool", "/tmp/*"),
            ("/tmp/go-build2718281828/b001/exe/a.out", "/tmp/*"),
            ("/tmp/TestRun123/001/tool", "/tmp/*"),
            ("/tmp/.tmpAbCdEf/fake", "/tmp/*"),
            ("/tmp/tmpabcdefgh/bin/x", "/tmp/*"),
            ("/tmp/pytest-of-root/pytest-17/test_one0/tool", "/tmp/pytest-of-root/*"),
            ("/var/tmp/etxtbsy-trace-dJmSUa/fork-exec-3", "/var/tmp/*"),
            ("/work/550e8400-e29b-41d4-a716-446655440000/x", "/work/N-N-N-N-N"),
            ("/work/build7/out/x", "/work/buildN/out"),
            ("/nix/store/0c9q4h2vxkfzj8d7-hello/bin/hello", "/nix/store/N-hello"),
            ("/usr/local/bin/tool", "/usr/local/bin"),
            ("/tool", ""),
            ("tool", ""),
        ];
        for (path, shape) in cases {
            assert_eq!(directory(path), shape, "{path}");
        }
    }
}
