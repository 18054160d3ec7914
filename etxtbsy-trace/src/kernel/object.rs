//! The object file with the eBPF programs, as the running kernel takes it.

use std::borrow::Cow;

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// As built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/etxtbsy-trace-ebpf"));

/// `BPF_F_NO_PREALLOC`, include/uapi/linux/bpf.h.
const NO_PREALLOC: u8 = 1;

/// Where `map_flags` is in `struct bpf_map_def`, after four words of as many bytes.
const MAP_FLAGS: u64 = 16;

/// The object file; if `preallocated`, with maps that take all their memory at the start.
pub(super) fn for_kernel(preallocated: bool) -> anyhow::Result<Cow<'static, [u8]>> {
    if !preallocated {
        return Ok(OBJECT.into());
    }
    let mut bytes = OBJECT.to_vec();
    for at in map_flags()? {
        bytes[at] &= !NO_PREALLOC;
    }
    Ok(bytes.into())
}

/// Where in [`OBJECT`] the flags of its maps are, by their lowest byte.
fn map_flags() -> anyhow::Result<Vec<usize>> {
    let file = object::File::parse(OBJECT).context("cannot read the eBPF object")?;
    let maps = file.section_by_name("maps").context("the eBPF object has no maps")?;
    let (start, size) = maps.file_range().context("the eBPF object's maps have no bytes")?;
    file.symbols()
        .filter(|symbol| symbol.section_index() == Some(maps.index()) && symbol.is_definition())
        .map(|symbol| symbol.address() + MAP_FLAGS)
        .filter(|at| *at < size)
        .map(|at| Ok(usize::try_from(start + at)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_maps_are_found() {
        let kept = for_kernel(false).unwrap();
        let changed = for_kernel(true).unwrap();
        let all = map_flags().unwrap();
        assert!(all.iter().all(|at| kept[*at] & !NO_PREALLOC == 0 && changed[*at] == 0));
        let late = all.iter().filter(|at| kept[**at] == NO_PREALLOC).count();
        let different = kept.iter().zip(&*changed).filter(|(a, b)| a != b).count();
        assert!(late > 0);
        assert_eq!(different, late, "nothing else is changed");
    }
}
