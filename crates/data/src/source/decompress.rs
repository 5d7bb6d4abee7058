//! Opens a file as a stream of text bytes, decompressing gzip and Zstandard.
//!
//! Both formats may contain several members (frames); all are read. Checksums are verified if
//! present.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use iiet_files::open_regular;
use ruzstd::decoding::BlockDecodingStrategy;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::Item;
use crate::config::{EXPANSION_FREE_BYTES, Limits};
use crate::error::{BadRecord, DataError, Problem};

/// The compression of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

const BUFFER_BYTES: usize = 256 * 1024;

/// Opens an item's text.
pub(crate) fn open(item: &Item, limits: &Limits) -> Result<Box<dyn BufRead>, DataError> {
    let file = open_regular(&item.path).map_err(DataError::io(&item.path))?;
    let file = BufReader::with_capacity(BUFFER_BYTES, file);
    let limited = |source: Box<dyn Read>| -> Box<dyn BufRead> {
        Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            Expansion {
                source,
                left: expansion(item, limits),
                over: over_expansion(limits),
            },
        ))
    };
    Ok(match item.compression {
        Compression::None => Box::new(file),
        Compression::Gzip => limited(Box::new(MultiGzDecoder::new(file))),
        Compression::Zstd => limited(Box::new(ZstdReader::new(file, limits.window_bytes))),
    })
}

/// Returns an error if a compressed file expands too much.
struct Expansion<R> {
    source: R,
    left: u64,
    over: Problem,
}

/// The maximum number of bytes after decompression.
pub(super) fn expansion(item: &Item, limits: &Limits) -> u64 {
    let allowed = item.bytes.saturating_mul(limits.expansion);
    allowed.max(EXPANSION_FREE_BYTES)
}

/// The error for a file that expands to more.
pub(super) fn over_expansion(limits: &Limits) -> Problem {
    Problem::OverLimit {
        what: "a compressed file",
        key: "data.limits.expansion",
        allowed: limits.expansion,
        unit: "times its size",
    }
}

impl<R: Read> Read for Expansion<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        let left = self.left.checked_sub(read as u64);
        self.left = left.ok_or_else(|| over_limit(self.over.clone()))?;
        Ok(read)
    }
}

/// Carries a problem through the interface of a reader; [`read_error`] extracts it.
pub(super) fn over_limit(problem: Problem) -> io::Error {
    io::Error::other(problem)
}

/// Classifies a failed read: a damaged stream is an invalid record, other errors are I/O errors.
pub(crate) fn read_error(
    item: &Item,
    lines: u64,
    error: io::Error,
) -> Result<BadRecord, DataError> {
    let path = item.path.clone();
    let error = match error.downcast::<Problem>() {
        Ok(problem) => {
            return Ok(BadRecord {
                path,
                line: None,
                problem,
            });
        }
        Err(error) => error,
    };
    if item.compression == Compression::None || error.raw_os_error().is_some() {
        return Err(DataError::Io {
            path,
            source: error,
        });
    }
    let problem = if ends_too_early(&error) {
        Problem::Truncated { lines }
    } else {
        let message = error.to_string();
        Problem::BadStream { lines, message }
    };
    Ok(BadRecord {
        path,
        line: None,
        problem,
    })
}

/// Whether the error is, or was caused by, an unexpected end of file.
fn ends_too_early(error: &io::Error) -> bool {
    let is_end = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    let mut cause: Option<&(dyn std::error::Error + 'static)> =
        error.get_ref().map(|inner| inner as _);
    if is_end(error) {
        return true;
    }
    while let Some(inner) = cause {
        if inner.downcast_ref::<io::Error>().is_some_and(is_end) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// Reads consecutive frames of a Zstandard stream. (The decoder's own stream type stops after the
/// first frame.)
struct ZstdReader<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R, window_bytes: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window_bytes);
        Self {
            source,
            decoder,
            in_frame: false,
        }
    }

    /// Starts the next frame that contains data; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { max, .. }) => {
                    return Err(over_limit(Problem::OverLimit {
                        what: "a Zstandard window",
                        key: "data.limits.window_bytes",
                        allowed: max,
                        unit: "bytes",
                    }));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            let stored = self.decoder.get_checksum_from_data();
            if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                return Err(io::Error::other("the checksum of a frame does not match"));
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::source::Reading;
    use crate::source::tests::{Collect, collect};
    use std::io::Write;

    pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn zstd(text: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(text, level)
    }

    /// The output of `printf 'hello\n' | zstd --check`: a raw block and a checksum.
    #[rustfmt::skip]
    const HELLO: [u8; 19] = [
        0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0x31, 0x00, 0x00, b'h', b'e', b'l', b'l', b'o', b'\n',
        0x53, 0x88, 0xbd, 0x91,
    ];

    #[test]
    fn several_members_and_frames_are_read() {
        let gz = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(collect("a.txt.gz", &gz).documents, ["one\ntwo\n"]);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 7, 7, 7].to_vec();
        let zst = [zstd(b"one\n"), skippable, HELLO.to_vec()].concat();
        assert_eq!(collect("a.txt.zst", &zst).documents, ["one\nhello\n"]);
    }

    #[test]
    fn every_truncation_is_reported() {
        let text = "line one\nline two\n".repeat(3);
        for (name, bytes) in [
            ("a.txt.gz", gzip(text.as_bytes())),
            ("a.txt.zst", zstd(text.as_bytes())),
        ] {
            assert_eq!(collect(name, &bytes).documents.concat(), text);
            for end in 1..bytes.len() {
                let got = collect(name, &bytes[..end]);
                assert_eq!(got.documents.len(), 0, "{name} cut at {end}");
                assert_eq!(got.bad.len(), 1);
                let problem = &got.bad[0].problem;
                assert!(
                    matches!(problem, Problem::Truncated { .. }),
                    "{name} cut at {end}: {problem}"
                );
            }
        }
    }

    #[test]
    fn windows_and_expansion_are_limited() {
        let read_with = |name: &str, bytes: &[u8], limits: Limits| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let item = &crate::source::find(&[&path], None).unwrap()[0];
            let reading = Reading {
                limits,
                ..Reading::of_field("text")
            };
            let mut got = Collect::default();
            crate::source::read(item, &reading, &mut got).unwrap();
            got.bad.iter().map(ToString::to_string).collect::<String>()
        };
        // A frame of 2^20 zeros in blocks of one repeated byte; its window is 2 MiB.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 11 << 3];
        for block in 0..8_u32 {
            let header = u32::from(block == 7) | 1 << 1 | (1 << 17) << 3;
            frame.extend(&header.to_le_bytes()[..3]);
            frame.push(b'0');
        }
        let limits = Limits {
            window_bytes: (2 << 20) - 1,
            ..Limits::default()
        };
        let message = read_with("a.txt.zst", &frame, limits);
        assert!(
            message.contains("data.limits.window_bytes = 2097151"),
            "{message}"
        );
        assert_eq!(read_with("a.txt.zst", &frame, Limits::default()), "");
        // 65 MiB, which exceeds both the free allowance and 20 times the file.
        let many = vec![frame; 65].concat();
        assert_eq!(
            read_with(
                "a.txt.zst",
                &many[..many.len() / 65 * 64],
                Limits {
                    expansion: 20,
                    ..Limits::default()
                }
            ),
            ""
        );
        let message = read_with("a.txt.zst", &many, Limits::default());
        assert!(message.contains("data.limits.expansion = 256"), "{message}");
        let gz = gzip(&vec![b'0'; 70 << 20]);
        let message = read_with("a.txt.gz", &gz, Limits::default());
        assert!(
            message.contains("more than 256 times its size"),
            "{message}"
        );
        let limits = Limits {
            expansion: 2000,
            ..Limits::default()
        };
        assert_eq!(read_with("a.txt.gz", &gz, limits), "");
    }

    #[test]
    fn a_wrong_checksum_is_reported() {
        for (name, mut bytes) in [
            ("a.txt.gz", gzip(b"hello\n")),
            ("a.txt.zst", HELLO.to_vec()),
        ] {
            let at = bytes.len() - if name.ends_with("gz") { 6 } else { 1 };
            bytes[at] ^= 1;
            let got = collect(name, &bytes);
            assert!(
                matches!(got.bad[0].problem, Problem::BadStream { .. }),
                "{name}"
            );
            assert!(got.documents.is_empty());
        }
    }
}
