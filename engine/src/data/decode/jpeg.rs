//! Whether a JPEG file is whole.

/// Whether an end-of-image marker follows the first scan.
///
/// The decoder fills what is missing with grey and reports nothing, so a half-downloaded
/// file would be trained on. Inside a scan the byte FF is always followed by 00 or a restart
/// marker, so FF D9 behind the first scan header can only be the end; before it, it may be
/// that of an embedded thumbnail.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let mut at = 2;
    loop {
        match bytes.get(at..at + 4) {
            // Fill bytes may stand before a marker.
            Some(&[0xff, 0xff, ..]) => at += 1,
            Some(&[0xff, START_OF_SCAN, ..]) => {
                return bytes[at..].windows(2).rev().any(|pair| pair == END_OF_IMAGE);
            }
            // Markers without a length: TEM and the restart markers.
            Some(&[0xff, 0x01 | 0xd0..=0xd7, ..]) => at += 2,
            Some(&[0xff, _, high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            // Junk between segments is skipped by decoders as well.
            Some(_) => at += 1,
            None => return false,
        }
    }
}
