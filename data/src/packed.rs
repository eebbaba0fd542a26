//! What compressed data may ask of a decompressor.

/// The most that decompressors keep of what they have written, in bytes. `zstd --ultra` takes
/// half of it, `xz -9` a quarter.
pub(crate) const MAX_WINDOW: u64 = 1 << 28;

/// The first bytes of an xz stream that [`xz_dictionary`] looks at.
pub(crate) const XZ_HEADERS: usize = STREAM_HEADER + 1024;
const STREAM_HEADER: usize = 12;

/// The dictionary that the first block of an xz stream asks for, in bytes. (The .xz file format,
/// 3.1 and 5.3.1: a header of at most 1 KiB, in which filter 33 has one byte of properties.)
pub(crate) fn xz_dictionary(data: &[u8]) -> u64 {
    const LZMA2: [u8; 2] = [0x21, 1];
    let header = data.get(STREAM_HEADER..data.len().min(XZ_HEADERS));
    let mut filters = header.unwrap_or_default().windows(3);
    match filters.find(|filter| filter.starts_with(&LZMA2)) {
        Some(&[.., bits]) if bits < 40 => (2 | u64::from(bits & 1)) << (bits / 2 + 11),
        Some(_) => u64::MAX,
        None => 0,
    }
}
