//! Which way up a picture is, as Pillow's `exif_transpose` finds it: by EXIF, else by XMP.

use image::metadata::Orientation;

use super::tiff::Directory;

const PREFIX: &[u8] = b"Exif\0\0";

/// The orientation that EXIF data or an XMP packet gives, none being upright.
pub(super) fn orientation(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let found = exif.and_then(of_exif).or_else(|| of_xmp(xmp?));
    found.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

fn of_exif(mut bytes: &[u8]) -> Option<u8> {
    // Some writers put it there twice.
    while let Some(rest) = bytes.strip_prefix(PREFIX) {
        bytes = rest;
    }
    Directory::first(bytes)?.ok()?.orientation()
}

/// `tiff:Orientation="6"` or `<tiff:Orientation>6</tiff:Orientation>`.
fn of_xmp(packet: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    packet.windows(NAME.len()).enumerate().filter(|(_, name)| *name == NAME).find_map(|(at, _)| {
        let rest = &packet[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        value.is_ascii_digit().then(|| value - b'0')
    })
}
