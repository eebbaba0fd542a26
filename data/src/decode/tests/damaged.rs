use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat};

use super::{
    decode, decode_deep, encode, exif_segment, npy, orientation, picture, problem, tiff_file,
};

#[test]
fn broken_files_say_what_is_wrong() {
    let image = DynamicImage::ImageRgba8(picture());
    let rgb = DynamicImage::ImageRgb8(image.to_rgb8());
    assert_eq!(problem(b"", 3), "some/file.jpg: the file is empty");
    assert!(problem(b"<html>404</html>", 3).contains("not a JPEG, PNG"));
    let formats = [
        (ImageFormat::Png, &image),
        (ImageFormat::Tiff, &image),
        (ImageFormat::WebP, &image),
        (ImageFormat::Bmp, &image),
        (ImageFormat::Jpeg, &rgb),
    ];
    for (format, image) in formats {
        let whole = encode(image, format);
        for kept in [whole.len() / 3, whole.len() * 2 / 3, whole.len() - 40] {
            let message = problem(&whole[..kept], 3);
            assert!(message.starts_with("some/file.jpg: "), "{format:?} {kept}: {message}");
        }
    }
}

#[test]
fn a_thumbnail_does_not_hide_that_a_jpeg_is_cut() {
    let whole = encode(
        &DynamicImage::ImageRgb8(DynamicImage::from(picture()).to_rgb8()),
        ImageFormat::Jpeg,
    );
    let mut bytes = whole[..2].to_vec();
    bytes.extend([0xff, 0xe2, 0, 6, 0xff, 0xd8, 0xff, 0xd9]); // APP2 with an end marker inside
    bytes.extend(&whole[2..]);
    assert!(decode("test", &bytes, 3).is_ok());
    bytes.truncate(bytes.len() - 10);
    assert!(problem(&bytes, 3).contains("truncated"));
    // Cameras write more behind the end.
    let mut longer = whole.clone();
    longer.extend([0; 100]);
    assert!(decode("test", &longer, 3).is_ok());
}

#[test]
fn decompression_bombs_are_refused_by_their_header() {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&[0], 1, 1, ExtendedColorType::L8).unwrap();
    // The header's width and height, and its checksum.
    bytes[16..20].copy_from_slice(&30_000u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&30_000u32.to_be_bytes());
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    let message = problem(&bytes, 3);
    assert!(message.contains("30000×30000 pixels are more than the 512000000"), "{message}");
}

/// The checksum of PNG chunks (CRC-32, ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// One small file of every kind whose structure is read here.
fn whole_files() -> Vec<Vec<u8>> {
    let image = DynamicImage::ImageRgba8(picture());
    let jpeg = encode(&DynamicImage::ImageRgb8(image.to_rgb8()), ImageFormat::Jpeg);
    let mut tagged = jpeg[..2].to_vec();
    tagged.extend(exif_segment(6));
    tagged.extend(&jpeg[2..]);
    let bits: &[(u16, &[u16])] = &[(258, &[1]), (259, &[4])];
    let bands: &[(u16, &[u16])] = &[
        (258, &[16; 3]),
        (277, &[3]),
        (338, &[0, 0]),
        (284, &[2]),
        (273, &[8, 12, 16]),
        (279, &[4, 4, 4]),
    ];
    let palette: &[(u16, &[u16])] = &[(258, &[4]), (320, &[9; 48])];
    let ycbcr: &[(u16, &[u16])] = &[(258, &[8; 3]), (277, &[3]), (530, &[2, 2])];
    let mut files = vec![
        npy(">f8", "True", "(1, 2, 1)", &[0; 16]),
        tagged,
        encode(&image, ImageFormat::Png),
        encode(&image, ImageFormat::WebP),
        encode(&image, ImageFormat::Tiff),
        tiff_file(&[16, 2], &[0x26, 0xa0, 0x55], 0, bits),
        tiff_file(&[2, 1], &[7; 12], 1, bands),
        tiff_file(&[4, 1], &[0x12, 0x34], 3, palette),
        tiff_file(&[4, 2], &[99; 12], 6, ycbcr),
    ];
    for compression in [2, 3, 5, 7, 8, 32773, 34925, 50000, 50001] {
        files.push(tiff_file(
            &[8, 2],
            &[0x80, 1, 2, 3, 4, 5],
            1,
            &[(258, &[8]), (259, &[compression])],
        ));
    }
    files
}

proptest::proptest! {
    #[test]
    fn damaged_files_never_panic(
        kind in 0..18usize,
        changes in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY), 0..6),
        kept in 0..400usize,
        channels in 1..6usize,
    ) {
        let mut bytes = whole_files().swap_remove(kind);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if kept > 200 {
            bytes.truncate(kept);
        }
        let _ = decode("test", &bytes, channels);
        let _ = decode_deep("test", &bytes, channels);
        let _ = orientation(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        magic in 0..8usize,
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let magics: [&[u8]; 8] = [
            b"", b"\x93NUMPY\x01\x00\x40\x00{'descr': '", b"\xff\xd8\xff", b"II*\0\x08\0\0\0",
            b"\x89PNG\r\n\x1a\n", b"BM", b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10", b"RIFF\0\x01\0\0WEBPVP8",
        ];
        let all = [magics[magic], &bytes].concat();
        let _ = decode("test", &all, 3);
    }
}
