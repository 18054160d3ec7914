//! Reads recordings that were compressed with gzip or zstd. The first bytes of the input show which.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// The first bytes of a gzip member.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The first bytes of a zstd frame.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The first bytes of a skippable zstd frame; the lower half of the first byte is free.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

/// The input together with the bytes of it that were read to recognise it.
type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// The lines of `input`, decompressed if it is compressed.
pub(super) fn reader<R: Read + Send + 'static>(
    mut input: R,
) -> io::Result<Box<dyn BufRead + Send>> {
    let mut magic = Vec::with_capacity(ZSTD.len());
    input.by_ref().take(ZSTD.len() as u64).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(&GZIP);
    let is_zstd = magic == ZSTD || is_skippable(&magic);
    let input = BufReader::new(Cursor::new(magic).chain(input));
    Ok(if is_gzip {
        Box::new(BufReader::new(MultiGzDecoder::new(input)))
    } else if is_zstd {
        Box::new(BufReader::new(Frames { input, decoder: FrameDecoder::new(), within: false }))
    } else {
        Box::new(input)
    })
}

fn is_skippable(magic: &[u8]) -> bool {
    magic.len() == SKIPPABLE.len()
        && magic[0] & 0xf0 == SKIPPABLE[0]
        && magic[1..] == SKIPPABLE[1..]
}

/// All frames of a zstd file, one after the other: the decoder reads only one.
struct Frames<R: Read> {
    input: Input<R>,
    decoder: FrameDecoder,
    /// Whether the decoder is within a frame.
    within: bool,
}

impl<R: Read> Frames<R> {
    /// Begins the next frame; false at the end of the input.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.input) {
                Ok(()) => {
                    self.within = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.input.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.within && self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.within && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.input, one).map_err(io::Error::other)?;
                continue;
            }
            self.within = false;
            if !self.begin()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        reader(Cursor::new(bytes))?.read_to_end(&mut out)?;
        Ok(out)
    }

    /// Longer than a block of either format.
    fn text() -> Vec<u8> {
        (0..40_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect()
    }

    #[test]
    fn gzip_zstd_and_plain_text_read_the_same() {
        for bytes in [text(), gzip(&text()), zstd(&text())] {
            assert_eq!(read(bytes).unwrap(), text());
        }
        for short in [&b""[..], b"{", b"{}\n"] {
            assert_eq!(read(short.to_vec()).unwrap(), short);
        }
    }

    #[test]
    fn appended_members_and_frames_are_read() {
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        for bytes in [
            [gzip(b"a\n"), gzip(b"b\n")].concat(),
            [zstd(b"a\n"), zstd(b"b\n")].concat(),
            [skippable.clone(), zstd(b"a\n"), skippable, zstd(b"b\n")].concat(),
        ] {
            assert_eq!(read(bytes).unwrap(), b"a\nb\n");
        }
    }

    #[test]
    fn damaged_input_is_an_error() {
        for mut bytes in [gzip(&text()), zstd(&text())] {
            bytes.truncate(bytes.len() / 2);
            assert!(read(bytes).is_err());
        }
    }
}
