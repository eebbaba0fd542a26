//! PNG files whose end is missing or damaged, and their orientation, which may stand behind the
//! pixels.

use std::io::Read;

use flate2::Crc;
use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::exif;

const SIGNATURE: usize = 8;
const LENGTH_AND_NAME: usize = 8;
const CHECKSUM: usize = 4;

/// The most that is read of a compressed text, which is Pillow's limit too.
const MAX_TEXT: u64 = 1 << 20;

struct Chunk<'a> {
    name: &'a [u8],
    /// As much of it as there is.
    content: &'a [u8],
}

/// The chunks of a file, the last of which may be cut.
fn chunks(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = file.get(SIGNATURE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_at_checked(LENGTH_AND_NAME)?;
        let length = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
        let content = &behind[..length.min(behind.len())];
        rest = behind.get(length.saturating_add(CHECKSUM)..).unwrap_or_default();
        Some(Chunk { name: &head[4..], content })
    })
}

/// By an eXIf chunk wherever it stands, else by ImageMagick's text, else by XMP: Pillow's order.
pub(super) fn orientation(file: &[u8]) -> Orientation {
    let (mut chunk, mut text, mut xmp) = (None, None, None);
    for Chunk { name, content } in chunks(file) {
        match (name, &content) {
            (b"eXIf", _) => chunk = Some(content.to_vec()),
            (b"tEXt" | b"zTXt" | b"iTXt", _) => {
                let key = content.split(|&byte| byte == 0).next().unwrap_or_default();
                let value = || text_of(name, &content[(key.len() + 1).min(content.len())..]);
                match key {
                    b"Raw profile type exif" => text = value().and_then(|text| unhex(&text)),
                    b"XML:com.adobe.xmp" => xmp = value(),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    exif::orientation(chunk.or(text).as_deref(), xmp.as_deref())
}

/// The text behind its keyword in a chunk `name`.
fn text_of(name: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let inflate = |bytes: &[u8]| {
        let mut text = Vec::new();
        ZlibDecoder::new(bytes).take(MAX_TEXT).read_to_end(&mut text).ok()?;
        Some(text)
    };
    match name {
        b"tEXt" => Some(content.to_vec()),
        // The method comes first.
        b"zTXt" => inflate(content.get(1..)?),
        _ => {
            // Whether it is compressed, the method, a language and a translated keyword.
            let (flags, rest) = content.split_at_checked(2)?;
            let mut parts = rest.splitn(3, |&byte| byte == 0);
            let text = parts.nth(2)?;
            if flags[0] == 1 { inflate(text) } else { Some(text.to_vec()) }
        }
    }
}

/// The bytes of a raw profile: a line break, its name, its length, and lines of hexadecimal digits.
fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').skip(3).flatten();
    let digits: Vec<u8> = lines.filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

/// A copy of the file that holds its header, palette and pixels, each with a right checksum, and an
/// end. Pillow asks for no more.
pub(super) fn repaired(file: &[u8]) -> Vec<u8> {
    let mut whole = file[..SIGNATURE.min(file.len())].to_vec();
    let mut add = |name: &[u8], content: &[u8]| {
        let mut checksum = Crc::new();
        checksum.update(name);
        checksum.update(content);
        whole.extend((content.len() as u32).to_be_bytes());
        whole.extend(name);
        whole.extend(content);
        whole.extend(checksum.sum().to_be_bytes());
    };
    for Chunk { name, content } in chunks(file) {
        if matches!(name, b"IHDR" | b"PLTE" | b"tRNS" | b"IDAT") {
            add(name, content);
        }
    }
    add(b"IEND", &[]);
    whole
}
