//! Perf maps: the names that a runtime gives to the code it makes, one `START SIZE NAME` a line.

/// The names of the code at some addresses. The last line that covers an address counts, because a runtime uses memory
/// again.
pub(crate) fn names<'a>(map: &'a [u8], addresses: &[u64]) -> Vec<Option<&'a [u8]>> {
    let mut names = vec![None; addresses.len()];
    if addresses.is_empty() {
        return names;
    }
    for line in map.split(|byte| *byte == b'\n') {
        let Some((start, size, name)) = entry(line) else { continue };
        for (found, address) in names.iter_mut().zip(addresses) {
            if address.checked_sub(start).is_some_and(|offset| offset < size) {
                *found = Some(name);
            }
        }
    }
    names
}

fn entry(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let mut number = || {
        let digits = str::from_utf8(fields.next()?).ok()?;
        u64::from_str_radix(digits.trim_start_matches("0x"), 16).ok()
    };
    let (start, size) = (number()?, number()?);
    let name = fields.next()?.trim_ascii();
    (!name.is_empty()).then_some((start, size, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_covers_an_address_counts() {
        let map =
            b"1000 10 old\n0x1008 4 JS:~f /a.js:1\nnonsense\n1000 zz bad\n2000 8\n3000 8 \nff";
        let names = names(map, &[0x1007, 0x1008, 0x100b, 0x100c, 0x1010, 0x2000, 0x3000]);
        let js: &[u8] = b"JS:~f /a.js:1";
        let old: &[u8] = b"old";
        assert_eq!(names, [Some(old), Some(js), Some(js), Some(old), None, None, None]);
    }

    #[test]
    fn sizes_do_not_overflow() {
        assert_eq!(names(b"ffffffffffffffff ffffffffffffffff x", &[0]), [None]);
    }
}
