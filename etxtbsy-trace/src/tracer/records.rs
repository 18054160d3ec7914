//! The records of the ring buffer as values.

use etxtbsy_trace_common::{
    Candidate, Change, Compat, Dropped, Failure, FailureEnd, Kind, ProgramExited, Repaired, Runner,
    TextHeader, TextOf, TreeEnded, WriteRefused,
};

use zerocopy::FromBytes;

/// A record.
#[derive(Clone, Debug)]
pub enum Record {
    /// An exec has failed; its details follow.
    Failure(Failure),
    /// An exec that succeeded, but may have failed; its details follow.
    NearMiss(Failure),
    /// A hold on its busy file.
    Candidate(Box<Candidate>),
    /// A text about it, or about a holder.
    Text(Text),
    /// Its details are complete.
    FailureEnd(FailureEnd),
    /// A hold on a recently busy file has begun.
    Acquired(Box<Change>),
    /// A hold on a recently busy file has ended.
    Released(Box<Change>),
    /// The traced tree has ended.
    TreeEnded(TreeEnded),
    /// A description that lingered is closed.
    Dropped(Dropped),
    /// A 32-bit program runs.
    Compat(Compat),
    /// A process that ran the refused file, or one of the name in question.
    Runner(Box<Runner>),
    /// Which file was refused.
    WriteRefused(WriteRefused),
    /// The process that was refused has made the file anew.
    Repaired(Repaired),
    /// A process that ran a file of interest runs it no more.
    ProgramExited(ProgramExited),
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// What it is the text of.
    pub of: TextOf,
    /// The failure it belongs to.
    pub seq: u64,
    /// The holder it speaks of, or 0.
    pub tgid: u32,
    /// The text; where it is cut off, `…` stands for the rest.
    pub bytes: Vec<u8>,
}

impl Record {
    /// Reads one record. `None` if the bytes are not one: the two sides are built together, so
    /// that means a defect, and is counted as a loss.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let kind = Kind::from_repr(u32::from_ne_bytes(*bytes.first_chunk()?))?;
        Some(match kind {
            Kind::Failure => Self::Failure(read(bytes)?),
            Kind::NearMiss => Self::NearMiss(read(bytes)?),
            Kind::Candidate => Self::Candidate(Box::new(read(bytes)?)),
            Kind::FailureEnd => Self::FailureEnd(read(bytes)?),
            Kind::Acquired => Self::Acquired(Box::new(read(bytes)?)),
            Kind::Released => Self::Released(Box::new(read(bytes)?)),
            Kind::Dropped => Self::Dropped(read(bytes)?),
            Kind::Runner => Self::Runner(Box::new(read(bytes)?)),
            Kind::WriteRefused => Self::WriteRefused(read(bytes)?),
            Kind::Repaired => Self::Repaired(read(bytes)?),
            Kind::Compat => Self::Compat(read(bytes)?),
            Kind::ProgramExited => Self::ProgramExited(read(bytes)?),
            Kind::TreeEnded => Self::TreeEnded(read(bytes)?),
            Kind::Text => {
                let head: TextHeader = read(bytes)?;
                let text = bytes.get(size_of::<TextHeader>()..)?.get(..head.len as usize)?;
                let (of, mut bytes) = (TextOf::from_repr(head.of)?, text.to_vec());
                if head.truncated != 0 {
                    bytes.extend_from_slice(cut(of).as_bytes());
                }
                Self::Text(Text { of, seq: head.seq, tgid: head.tgid, bytes })
            }
        })
    }
}

/// What stands for the rest of a text that is cut off: of a path, a name above the others.
fn cut(of: TextOf) -> &'static str {
    match of {
        TextOf::Path | TextOf::VictimArgv => "…",
        TextOf::BusyFile
        | TextOf::Target
        | TextOf::VictimExe
        | TextOf::VictimCwd
        | TextOf::HolderExe
        | TextOf::HolderFile
        | TextOf::Directory => "…\0",
    }
}

/// A value of fixed size at the start of `bytes`.
fn read<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}

/// A path from the names of its components, leaf first, each ended by NUL, as
/// [`TextOf::BusyFile`] and its like have them.
#[must_use]
pub fn path_of(names: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(names.len() + 1);
    let names = names.strip_suffix(b"\0").unwrap_or(names);
    for name in names.rsplit(|byte| *byte == 0) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes as _;

    #[test]
    fn a_path_is_put_together_from_its_leaf() {
        assert_eq!(path_of(b"true\0bin\0usr\0"), b"/usr/bin/true");
        assert_eq!(path_of(b""), b"/");
        assert_eq!(path_of(b"a b\n\xff\0tmp\0"), b"/tmp/a b\n\xff");
    }

    #[test]
    fn bytes_that_are_no_record_are_none() {
        assert!(Record::decode(b"").is_none());
        assert!(Record::decode(&[9, 0, 0, 0]).is_none());
        assert!(Record::decode(&(Kind::Failure as u32).to_ne_bytes()).is_none());
        let mut text = TextHeader { kind: Kind::Text as u32, of: 1, len: 5, ..Default::default() };
        let mut bytes = text.as_bytes().to_vec();
        bytes.extend_from_slice(b"abc");
        assert!(Record::decode(&bytes).is_none(), "fewer bytes than the head says");
        text.len = 3;
        bytes[20..24].copy_from_slice(&text.len.to_ne_bytes());
        let Some(Record::Text(read)) = Record::decode(&bytes) else { panic!("no text") };
        assert_eq!(read.bytes, b"abc");

        let cut_off = |bytes: &mut [u8], of: TextOf| {
            bytes[4..8].copy_from_slice(&(of as u32).to_ne_bytes());
            bytes[24..28].copy_from_slice(&1_u32.to_ne_bytes());
            let Some(Record::Text(read)) = Record::decode(bytes) else { panic!("no text") };
            read.bytes
        };
        assert_eq!(cut_off(&mut bytes, TextOf::VictimArgv), "abc…".as_bytes());
        bytes.pop();
        bytes.push(0);
        assert_eq!(path_of(&cut_off(&mut bytes, TextOf::BusyFile)), "/…/ab".as_bytes());
    }
}
