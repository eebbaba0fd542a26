//! Streams that gzip, xz or Zstandard have compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::FrameDecoderError;

use crate::packed::{MAX_WINDOW, XZ_HEADERS, xz_dictionary};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    Zstd,
}

/// Why an archive can't be unpacked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The streams don't hold what they should.
    Damaged(io::Error),
    /// More memory is asked for than [`MAX_WINDOW`], in bytes.
    Window(u64),
    /// What is unpacked could not be kept.
    Kept(io::Error),
}

impl Compression {
    /// What has compressed the file that begins with `start`.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
            _ if skippable(start) => Some(Compression::Zstd),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "Zstandard",
        }
    }

    /// The command that unpacks a file, whatever memory it asks for.
    pub(super) fn command(self) -> &'static str {
        match self {
            Compression::Gzip => "gunzip",
            Compression::Xz => "unxz",
            Compression::Zstd => "zstd -d --long=31",
        }
    }

    /// Gives `keep` the content of `packed`, piece by piece. One stream may follow another; what
    /// else follows is padding.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn unpack(
        self,
        packed: File,
        keep: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut packed = BufReader::with_capacity(1 << 16, packed);
        let mut buffer = vec![0; 1 << 16];
        let mut copy = |stream: &mut dyn Read| loop {
            let count = stream.read(&mut buffer).map_err(damaged)?;
            if count == 0 {
                return Ok(());
            }
            keep(&buffer[..count]).map_err(Failure::Kept)?;
        };
        let mut start = [0; XZ_HEADERS];
        loop {
            let start = ahead(&mut packed, &mut start).map_err(Failure::Damaged)?;
            if Compression::of(start) != Some(self) {
                return Ok(());
            }
            match self {
                Compression::Gzip => copy(&mut GzDecoder::new(&mut packed))?,
                Compression::Xz => {
                    let dictionary = xz_dictionary(start);
                    if dictionary > MAX_WINDOW {
                        return Err(Failure::Window(dictionary));
                    }
                    copy(&mut XzReader::new(&mut packed, false))?;
                    skip_zeros(&mut packed).map_err(Failure::Damaged)?;
                }
                Compression::Zstd if skippable(start) => skip(&mut packed)?,
                Compression::Zstd => {
                    let mut stream =
                        StreamingDecoder::new_with_max_window_size(&mut packed, MAX_WINDOW)
                            .map_err(refused)?;
                    copy(&mut stream)?;
                    let frame = &stream.decoder;
                    let stored = frame.get_checksum_from_data();
                    if stored.is_some() && stored != frame.get_calculated_checksum() {
                        return Err(Failure::Damaged(io::Error::other("wrong checksum")));
                    }
                }
            }
        }
    }
}

/// The bytes that come next, without taking them: fewer than `buffer` has only before the end.
fn ahead<'a>(packed: &mut BufReader<File>, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let place = packed.stream_position()?;
    let count = packed.get_ref().read_at(buffer, place)?;
    Ok(&buffer[..count])
}

/// Whether a Zstandard frame begins that holds no data (RFC 8878, section 3.1.2), as pzstd and
/// seekable archives have them.
fn skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Skips such a frame.
fn skip(packed: &mut BufReader<File>) -> Result<(), Failure> {
    let mut header = [0; 8];
    let mut read = || {
        packed.read_exact(&mut header)?;
        let [.., a, b, c, d] = header;
        packed.seek_relative(u32::from_le_bytes([a, b, c, d]).into())
    };
    read().map_err(Failure::Damaged)
}

/// Skips the zeros that may stand between xz streams.
fn skip_zeros(packed: &mut BufReader<File>) -> io::Result<()> {
    loop {
        let bytes = packed.fill_buf()?;
        let (zeros, all) = (bytes.iter().take_while(|&&byte| byte == 0).count(), bytes.len());
        packed.consume(zeros);
        if zeros < all || all == 0 {
            return Ok(());
        }
    }
}

fn refused(error: FrameDecoderError) -> Failure {
    match error {
        FrameDecoderError::WindowSizeTooBig { requested, .. } => Failure::Window(requested),
        other => damaged(io::Error::other(other)),
    }
}

/// Of a stream that ends early ruzstd says so in the midst of its own types.
fn damaged(error: io::Error) -> Failure {
    let ends = error.to_string().contains("UnexpectedEof");
    Failure::Damaged(if ends { io::ErrorKind::UnexpectedEof.into() } else { error })
}
