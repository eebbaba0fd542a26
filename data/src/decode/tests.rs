//! Every format and sample type, written at test time.

use std::collections::BTreeMap;

use ::png;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, RgbaImage};

use super::*;

/// Files that are cut or changed.
mod damaged;

const WIDTH: u32 = 16;
const HEIGHT: u32 = 8;

/// A smooth picture, so that lossy formats stay close: red grows to the right, green downwards,
/// blue is constant; the left half is opaque.
fn picture() -> RgbaImage {
    RgbaImage::from_fn(WIDTH, HEIGHT, |x, y| {
        image::Rgba([10 * x as u8, 20 * y as u8, 90, if x < 8 { 255 } else { 100 }])
    })
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn samples(bytes: &[u8], channels: usize) -> Vec<u8> {
    match decode("test", bytes, channels).unwrap().pixels() {
        Pixels::U8(samples) => samples.clone(),
        Pixels::F32(_) => panic!("expected bytes"),
    }
}

fn floats(bytes: &[u8], channels: usize) -> Vec<f32> {
    match decode("test", bytes, channels).unwrap().pixels() {
        Pixels::F32(samples) => samples.clone(),
        Pixels::U8(_) => panic!("expected floats"),
    }
}

fn problem(bytes: &[u8], channels: usize) -> String {
    decode("some/file.jpg", bytes, channels).unwrap_err().to_string()
}

fn largest_difference(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn every_sample_type_of_every_format_gives_the_same_rgb() {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
    let rgba = DynamicImage::ImageRgba8(picture());
    let rgb = DynamicImage::ImageRgb8(rgba.to_rgb8());
    let colour = rgba.to_rgb8().into_raw();
    for format in [Png, Tiff, WebP, Bmp] {
        assert_eq!(samples(&encode(&rgb, format), 3), colour, "{format:?} RGB");
        assert_eq!(samples(&encode(&rgba, format), 3), colour, "{format:?} RGBA");
    }
    for format in [Png, Tiff] {
        let deep = DynamicImage::ImageRgb16(rgba.to_rgb16());
        assert_eq!(samples(&encode(&deep, format), 3), colour, "{format:?} RGB, 16 bits");
        let deep = DynamicImage::ImageRgba16(rgba.to_rgba16());
        assert_eq!(samples(&encode(&deep, format), 3), colour, "{format:?} RGBA, 16 bits");
    }
    // Quality 75 quantises a smooth gradient to within a few levels.
    assert!(largest_difference(&samples(&encode(&rgb, Jpeg), 3), &colour) <= 12);
}

#[test]
fn grey_is_replicated_and_alpha_dropped() {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
    let grey = GrayImage::from_fn(WIDTH, HEIGHT, |x, y| Luma([(10 * x + 5 * y) as u8]));
    let tripled: Vec<u8> = grey.as_raw().iter().flat_map(|&v| [v; 3]).collect();
    let grey = DynamicImage::ImageLuma8(grey);
    let variants = [
        (Png, grey.clone()),
        (Tiff, grey.clone()),
        (Bmp, grey.clone()),
        (WebP, grey.clone()),
        (Png, DynamicImage::ImageLumaA8(grey.to_luma_alpha8())),
        (Png, DynamicImage::ImageLuma16(grey.to_luma16())),
        (Tiff, DynamicImage::ImageLuma16(grey.to_luma16())),
        (Png, DynamicImage::ImageLumaA16(grey.to_luma_alpha16())),
    ];
    for (format, image) in variants {
        let bytes = encode(&image, format);
        assert_eq!(samples(&bytes, 3), tripled, "{format:?} {:?}", image.color());
        assert_eq!(&samples(&bytes, 1), grey.as_bytes(), "{format:?} {:?}", image.color());
    }
    let jpeg = samples(&encode(&grey, Jpeg), 1);
    assert!(largest_difference(&jpeg, grey.as_bytes()) <= 12);
}

#[test]
fn other_channel_counts() {
    let rgba = DynamicImage::ImageRgba8(picture());
    let bytes = encode(&rgba, ImageFormat::Png);
    assert_eq!(&samples(&bytes, 4), rgba.as_bytes());
    // Rec. 601: 0.299·30 + 0.587·40 + 0.114·90 = 42.71 at (3, 2).
    assert_eq!(samples(&bytes, 1)[2 * WIDTH as usize + 3], 43);
    let opaque = encode(&DynamicImage::ImageRgb8(rgba.to_rgb8()), ImageFormat::Bmp);
    assert!(samples(&opaque, 4).chunks(4).all(|pixel| pixel[3] == 255));
    let message = problem(&bytes, 6);
    assert!(message.contains("not 6") && message.contains(".npy"), "{message}");
}

#[test]
fn sixteen_bits_are_scaled_not_clipped() {
    let deep = image::ImageBuffer::from_fn(2, 1, |x, _| Luma([[0x1234u16, 0xfedc][x as usize]]));
    let bytes = encode(&DynamicImage::ImageLuma16(deep), ImageFormat::Png);
    // 0x1234 / 257 = 18.1, 0xfedc / 257 = 253.9
    assert_eq!(samples(&bytes, 1), [18, 254]);
}

#[test]
fn palettes_are_looked_up() {
    // 2×2 pixels of 4 colours, 2 bits each: rows 0b00_01 and 0b10_11.
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 2);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![1, 2, 3, 40, 50, 60, 70, 80, 90, 100, 110, 120]);
    encoder.set_trns(vec![0]);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0b0001_0000, 0b1011_0000]).unwrap();
    drop(writer);
    assert_eq!(samples(&bytes, 3), [1, 2, 3, 40, 50, 60, 70, 80, 90, 100, 110, 120]);
    assert_eq!(samples(&bytes, 4)[..8], [1, 2, 3, 0, 40, 50, 60, 255]);

    let tiff = tiff_file(&[2, 1], &[1, 0], 3, &[(258, &[8]), (320, &palette_of_two())]);
    assert_eq!(samples(&tiff, 3), [40, 50, 60, 1, 2, 3]);
    let beyond = tiff_file(&[2, 1], &[1, 7], 3, &[(258, &[8]), (320, &palette_of_two())]);
    assert!(problem(&beyond, 3).contains("colour 7 is outside its palette of 2"));
}

fn palette_of_two() -> [u16; 6] {
    [1, 40, 2, 50, 3, 60].map(|level| level * 257)
}

/// A little-endian TIFF: [width, height], its samples, photometric interpretation, and tags of
/// 16-bit values, which replace those of a single strip.
fn tiff_file(size: &[u16; 2], data: &[u8], photometric: u16, tags: &[(u16, &[u16])]) -> Vec<u8> {
    let (width, height, bytes) = (size[0], size[1], data.len() as u16);
    let basic: [(u16, &[u16]); 7] = [
        (256, &[width]),
        (257, &[height]),
        (259, &[1]),
        (262, &[photometric]),
        (273, &[8]),
        (278, &[height]),
        (279, &[bytes]),
    ];
    let all: BTreeMap<u16, &[u16]> = basic.into_iter().chain(tags.iter().copied()).collect();
    let padded = data.len().next_multiple_of(2);
    let directory = 8 + padded;
    let mut extra_at = directory + 2 + 12 * all.len() + 4;
    let mut file = b"II*\0".to_vec();
    file.extend((directory as u32).to_le_bytes());
    file.extend(data);
    file.resize(directory, 0);
    file.extend((all.len() as u16).to_le_bytes());
    let mut extra = Vec::new();
    for (tag, values) in &all {
        file.extend(tag.to_le_bytes());
        file.extend(3u16.to_le_bytes());
        file.extend((values.len() as u32).to_le_bytes());
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        if bytes.len() <= 4 {
            file.extend(&bytes);
            file.resize(file.len() + 4 - bytes.len(), 0);
        } else {
            file.extend((extra_at as u32).to_le_bytes());
            extra_at += bytes.len();
            extra.extend(bytes);
        }
    }
    file.extend([0; 4]);
    file.extend(extra);
    file
}

#[test]
fn tiff_bands_of_any_number() {
    // Two pixels of five 16-bit bands.
    let data: Vec<u8> = (0..10u16).flat_map(|v| (v * 6553).to_le_bytes()).collect();
    let extra: &[u16] = &[0; 4];
    let tags: &[(u16, &[u16])] = &[(258, &[16; 5]), (277, &[5]), (338, extra)];
    let file = tiff_file(&[2, 1], &data, 1, tags);
    let bands = floats(&file, 5);
    let expected = [0, 5, 1, 6, 2, 7, 3, 8, 4, 9].map(|v| (v * 6553) as f32 / 65535.0);
    assert_eq!(bands, expected);
    assert!(problem(&file, 4).contains("5 bands, but 4 are needed"));
    // Two planes, one strip each.
    let tags: &[(u16, &[u16])] =
        &[(258, &[8; 2]), (277, &[2]), (338, &[0]), (273, &[8, 10]), (279, &[2, 2]), (284, &[2])];
    let planar = tiff_file(&[2, 1], &[0, 51, 102, 255], 1, tags);
    assert_eq!(floats(&planar, 2), [0.0, 0.2, 0.4, 1.0]);
}

#[test]
fn grey_tiff_with_alpha() {
    let tags: &[(u16, &[u16])] = &[(258, &[8, 8]), (277, &[2]), (338, &[2])];
    let file = tiff_file(&[2, 1], &[7, 255, 90, 0], 1, tags);
    assert_eq!(samples(&file, 1), [7, 90]);
    assert_eq!(samples(&file, 3), [7, 7, 7, 90, 90, 90]);
    assert_eq!(samples(&file, 4), [7, 7, 7, 255, 90, 90, 90, 0]);
}

/// An APP1 segment that holds an EXIF orientation and nothing else.
pub(super) fn exif_segment(orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut segment = vec![0xff, 0xe1];
    segment.extend((exif.len() as u16 + 2).to_be_bytes());
    segment.extend(exif);
    segment
}

#[test]
fn exif_orientation_turns_the_picture_upright() {
    // A bright top left corner block on black, 16 wide and 8 high.
    let image =
        GrayImage::from_fn(WIDTH, HEIGHT, |x, y| Luma([if x < 8 && y < 4 { 255 } else { 0 }]));
    let plain = encode(&DynamicImage::ImageLuma8(image), ImageFormat::Jpeg);
    // Orientation, its size, and the corner where the bright block ends up.
    let upright = [
        (1, (16, 8), (0, 0)),
        (2, (16, 8), (1, 0)),
        (3, (16, 8), (1, 1)),
        (4, (16, 8), (0, 1)),
        (5, (8, 16), (0, 0)),
        (6, (8, 16), (1, 0)),
        (7, (8, 16), (1, 1)),
        (8, (8, 16), (0, 1)),
    ];
    for (orientation, (width, height), (right, bottom)) in upright {
        let mut bytes = plain[..2].to_vec();
        bytes.extend(exif_segment(orientation));
        bytes.extend(&plain[2..]);
        let image = decode("test", &bytes, 1).unwrap();
        assert_eq!((image.width(), image.height()), (width, height), "{orientation}");
        let Pixels::U8(samples) = image.pixels() else { unreachable!() };
        let corner = |right, bottom| samples[bottom * (height - 1) * width + right * (width - 1)];
        for (r, b) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            assert_eq!(corner(r, b) > 128, (r, b) == (right, bottom), "{orientation}: {r} {b}");
        }
    }
    let turned = tiff_file(&[2, 1], &[9, 200], 1, &[(258, &[8]), (274, &[6])]);
    let image = decode("test", &turned, 1).unwrap();
    assert_eq!((image.width(), image.height()), (1, 2));
}

fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn arrays_of_any_number_of_channels() {
    let bytes: Vec<u8> = (0..12).map(|v| v * 17).collect();
    let unit = |v: usize| (v * 17) as f32 / 255.0;
    let planar = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11].map(unit);
    assert_eq!(floats(&npy("|u1", "False", "(1, 2, 6)", &bytes), 6), planar);
    // Column-major: the row index runs fastest, then columns, then channels.
    let planar = [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11].map(unit);
    assert_eq!(floats(&npy("|u1", "True", "(2, 2, 3)", &bytes), 3), planar);
    let wide: Vec<u8> = [0u16, 65535, 13107].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(floats(&npy("<u2", "False", "(1, 3)", &wide), 1), [0.0, 1.0, 0.2]);
    let reals: Vec<u8> = [-2.5f32, 1e6].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(floats(&npy("<f4", "False", "(2, 1, 1)", &reals), 1), [-2.5, 1e6]);
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let four = [0; 4];
    let message = problem(&npy("|u1", "False", "(2, 2, 1)", &four), 3);
    assert!(message.contains("[2, 2, 1], but [height, width, 3]"), "{message}");
    assert!(problem(&npy("<c8", "False", "(1, 1, 1)", &[0; 8]), 1).contains("<c8"));
    assert!(problem(&npy("|u1", "False", "(2, 3, 1)", &four), 1).contains("4 bytes found"));
    assert!(problem(&npy("|u1", "False", "(0, 3, 1)", &[]), 1).contains("0×3"));
    let huge = "(99999999999, 99999999999, 9)";
    assert!(problem(&npy("|u1", "False", huge, &four), 9).contains("more than"));
    let claims_much = "(20000, 20000, 3)";
    assert!(problem(&npy("<f4", "False", claims_much, &four), 3).contains("4 bytes found"));
    let nan = npy("<f4", "False", "(1, 2, 1)", &[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]);
    assert!(problem(&nan, 1).contains("row 0, column 1, channel 0 is NaN"));
    assert!(problem(b"\x93NUMPY\x01\x00\xff\xff{", 1).contains("header is incomplete"));
}

#[test]
fn jpeg_quality_is_kept() {
    let rgb = DynamicImage::ImageRgba8(picture()).to_rgb8();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 100).encode_image(&rgb).unwrap();
    // At quality 100 only rounding (colour conversion, DCT) and 4:2:0 chroma remain.
    let decoded = samples(&bytes, 3);
    assert!(largest_difference(&decoded, rgb.as_raw()) <= 8);
}

#[test]
fn deep_pictures_keep_their_bits() {
    let floats = |bytes: &[u8], channels| match decode_deep("test", bytes, channels).unwrap() {
        image if matches!(image.pixels(), Pixels::F32(_)) => match image.into_pixels() {
            Pixels::F32(planes) => planes,
            Pixels::U8(_) => unreachable!(),
        },
        _ => panic!("expected floats"),
    };
    let unit = |value: u16| f32::from(value) / 65535.0;
    let grey = image::ImageBuffer::from_fn(2, 1, |x, _| Luma([[0x1234u16, 0xfedc][x as usize]]));
    let colours = image::ImageBuffer::from_fn(2, 1, |x, _| {
        image::Rgb([[1u16, 2, 3], [65535, 300, 7]][x as usize])
    });
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let bytes = encode(&DynamicImage::ImageLuma16(grey.clone()), format);
        assert_eq!(floats(&bytes, 1), [0x1234, 0xfedc].map(unit), "{format:?}");
        assert_eq!(floats(&bytes, 3), [0x1234, 0xfedc].map(unit).repeat(3), "{format:?}");
        let bytes = encode(&DynamicImage::ImageRgb16(colours.clone()), format);
        assert_eq!(floats(&bytes, 3), [1, 65535, 2, 300, 3, 7].map(unit), "{format:?}");
        let luma = floats(&bytes, 1)[1];
        let expected = 0.299 + 0.587 * unit(300) + 0.114 * unit(7);
        assert!((luma - expected).abs() < 1e-6, "{format:?}: {luma}");
    }
    // Pictures of 8 bits stay bytes.
    let bytes = encode(&DynamicImage::ImageRgba8(picture()), ImageFormat::Png);
    assert_eq!(decode_deep("test", &bytes, 3).unwrap(), decode("test", &bytes, 3).unwrap());
}

#[test]
fn what_turned_a_picture_is_told() {
    let plain = encode(&DynamicImage::ImageRgba8(picture()).to_rgb8().into(), ImageFormat::Jpeg);
    assert_eq!(orientation(&plain), Orientation::NoTransforms);
    let mut bytes = plain[..2].to_vec();
    bytes.extend(exif_segment(6));
    bytes.extend(&plain[2..]);
    assert_eq!(orientation(&bytes).to_exif(), 6);
    let turned = tiff_file(&[2, 1], &[9, 200], 1, &[(258, &[8]), (274, &[8])]);
    assert_eq!(orientation(&turned).to_exif(), 8);
}
