//! Reduced decoding against decoding in full, of pictures with edges, texture and noise. (Real
//! photographs are compared in the workspace's tests.)

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, RgbImage};
use mozjpeg::Compress;

use super::super::file::ImageFile;
use super::super::{decode, tests::exif_segment};
use super::*;
use crate::rng::Rng;
use crate::{
    LazyImage, Normalize, PretrainTransform, RandomHorizontalFlip, RandomResizedCrop, Transform,
};

const FILTER: Interpolation = Interpolation::Bicubic;

/// Waves, sharp squares and noise; odd sides, so that the last blocks are cut.
fn scene() -> RgbImage {
    let mut rng = Rng::new(3, &[]);
    RgbImage::from_fn(611, 427, |x, y| {
        let wave = (f64::from(x) / 19.0).sin() * 50.0 + (f64::from(x + 2 * y) / 47.0).cos() * 40.0;
        let square = if (x / 60 + y / 45) % 3 == 0 { 50.0 } else { 0.0 };
        let noise = rng.between(-8.0, 8.0);
        let level = |offset: f64| (100.0 + offset + wave + square + noise).clamp(0.0, 255.0) as u8;
        image::Rgb([level(0.0), level(20.0 - square), level(f64::from(y) / 8.0)])
    })
}

/// The scene as libjpeg writes it.
fn jpeg(colours: ColorSpace, progressive: bool) -> Vec<u8> {
    let scene = scene();
    let (width, height) = (scene.width() as usize, scene.height() as usize);
    let scene = DynamicImage::from(scene);
    let mut file = Compress::new(colours);
    file.set_fastest_defaults();
    file.set_size(width, height);
    file.set_quality(90.0);
    if progressive {
        file.set_progressive_mode();
    }
    let mut file = file.start_compress(Vec::new()).unwrap();
    let samples = match colours {
        ColorSpace::JCS_GRAYSCALE => scene.into_luma8().into_raw(),
        ColorSpace::JCS_CMYK => scene.into_rgba8().into_raw(),
        _ => scene.into_rgb8().into_raw(),
    };
    file.write_scanlines(&samples).unwrap();
    file.finish().unwrap()
}

fn baseline() -> Vec<u8> {
    jpeg(ColorSpace::JCS_RGB, false)
}

fn turned(bytes: &[u8], orientation: u8) -> Vec<u8> {
    [&bytes[..2], &exif_segment(orientation), &bytes[2..]].concat()
}

/// A part of a file by way of [`ImageFile`], and of the fully decoded image.
fn both(bytes: &[u8], channels: usize, area: CropBox, size: (usize, usize)) -> [Vec<u8>; 2] {
    let file = ImageFile::new("test", bytes.to_vec(), channels, true);
    let part = LazyImage::resized_crop(&file, area, size, FILTER).unwrap();
    let full = decode("test", bytes, channels).unwrap();
    assert_eq!(file.size().unwrap(), (full.height(), full.width()));
    [part, full.resized_crop(area, size, FILTER).unwrap()].map(|image| {
        assert_eq!((image.height(), image.width(), image.channels()), (size.0, size.1, channels));
        match image.into_pixels() {
            Pixels::U8(samples) => samples,
            Pixels::F32(_) => unreachable!(),
        }
    })
}

/// The mean difference.
fn mean(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// That a part was reduced, and is close: 0.8 levels in the mean, and a tenth of a percent
/// further off than 8. Photographs at this margin are off by 0.4 levels, 0.01 % of their samples
/// by more than 8; this scene has more contrast.
fn assert_close([part, full]: [Vec<u8>; 2], case: &str) {
    assert!(part != full, "{case}: it was decoded in full");
    let mean = mean(&part, &full);
    let far = part.iter().zip(&full).filter(|(a, b)| a.abs_diff(**b) > 8).count();
    assert!(mean < 0.8 && far * 1000 < part.len(), "{case}: {mean}, {far} of {}", part.len());
}

#[test]
fn the_smallest_size_that_leaves_enough_is_read() {
    assert_eq!(eighths((3584, 3584), (224, 224)), Some(1));
    assert_eq!(eighths((3583, 4000), (224, 224)), Some(2));
    assert_eq!(eighths((4000, 1791), (224, 224)), Some(4));
    assert_eq!(eighths((4000, 895), (224, 224)), None);
    assert_eq!(eighths((896, 896), (224, 224)), Some(4));
    assert_eq!(eighths((375, 500), (224, 224)), None);
    assert_eq!(eighths((375, 500), (usize::MAX, 1)), None);
}

#[test]
fn reduced_parts_are_close_to_the_full_ones() {
    let kinds = [
        ("baseline", baseline(), 3),
        ("progressive", jpeg(ColorSpace::JCS_RGB, true), 3),
        ("grey", jpeg(ColorSpace::JCS_GRAYSCALE, false), 3),
        ("grey as luma", jpeg(ColorSpace::JCS_GRAYSCALE, false), 1),
        ("colours as luma", baseline(), 1),
    ];
    let areas = [
        CropBox { top: 0, left: 0, height: 427, width: 611 },
        CropBox { top: 13, left: 101, height: 385, width: 417 },
        CropBox { top: 42, left: 222, height: 385, width: 389 },
    ];
    for (kind, bytes, channels) in &kinds {
        for area in areas {
            for size in [(90, 90), (40, 44), (20, 24)] {
                assert_close(both(bytes, *channels, area, size), &format!("{kind} {size:?}"));
            }
        }
    }
}

#[test]
fn a_part_in_the_wrong_place_would_be_noticed() {
    let full = decode("test", &baseline(), 3).unwrap();
    let crop = |area| match full.resized_crop(area, (40, 44), FILTER).unwrap().into_pixels() {
        Pixels::U8(samples) => samples,
        Pixels::F32(_) => unreachable!(),
    };
    let area = CropBox { top: 13, left: 101, height: 385, width: 417 };
    // By half a pixel of the quarter that is read.
    let moved = [CropBox { top: 15, ..area }, CropBox { left: 103, ..area }];
    for moved in moved {
        let difference = mean(&crop(area), &crop(moved));
        assert!(difference > 1.6, "{difference}");
    }
}

#[test]
fn parts_are_turned_upright_as_the_whole_is() {
    let plain = baseline();
    for orientation in 1..=8 {
        let area = match orientation {
            1..=4 => CropBox { top: 11, left: 150, height: 380, width: 400 },
            _ => CropBox { top: 150, left: 11, height: 400, width: 380 },
        };
        let parts = both(&turned(&plain, orientation), 3, area, (40, 46));
        assert_close(parts, &format!("orientation {orientation}"));
    }
}

#[test]
fn what_is_not_reduced_is_the_same_to_the_bit() {
    let whole = CropBox { top: 0, left: 0, height: 427, width: 611 };
    let same = |bytes: &[u8], channels, area, size| {
        let [part, full] = both(bytes, channels, area, size);
        part == full
    };
    // Too small a part, kinds that aren't read so, and other formats.
    let plain = baseline();
    assert!(same(&plain, 3, CropBox { top: 7, left: 9, height: 395, width: 399 }, (100, 100)));
    assert!(same(&plain, 4, whole, (40, 40)));
    assert!(same(&jpeg(ColorSpace::JCS_CMYK, false), 3, whole, (40, 40)));
    let mut png = std::io::Cursor::new(Vec::new());
    scene().write_to(&mut png, ImageFormat::Png).unwrap();
    assert!(same(&png.into_inner(), 3, whole, (40, 40)));
    // Switched off.
    let file = ImageFile::new("test", plain.clone(), 3, false);
    let full = decode("test", &plain, 3).unwrap().resized_crop(whole, (40, 40), FILTER).unwrap();
    assert!(LazyImage::resized_crop(&file, whole, (40, 40), FILTER).unwrap() == full);
}

#[test]
fn a_transform_gives_the_same_again_and_only_differs_where_it_may() {
    let transform = PretrainTransform {
        crop: RandomResizedCrop::new((32, 32), (0.5, 1.0), (0.75, 1.33), FILTER).unwrap(),
        flip: RandomHorizontalFlip::new(0.5).unwrap(),
        normalize: Normalize::imagenet(),
    };
    let bytes = baseline();
    let sample = |picture: &dyn LazyImage, seed| {
        let mut out = vec![0.0; 3 * 32 * 32];
        transform.apply(picture, &mut Rng::new(seed, &[]), &mut out).unwrap();
        out
    };
    let file = |reduced| ImageFile::new("test", bytes.clone(), 3, reduced);
    let full = decode("test", &bytes, 3).unwrap();
    for seed in 0..5 {
        let reduced = sample(&file(true), seed);
        assert!(reduced == sample(&file(true), seed));
        assert!(sample(&file(false), seed) == sample(&full, seed));
        assert!(reduced != sample(&full, seed));
        // The same crop and flip: a level is 1 / (255 · 0.225).
        let exact = sample(&full, seed);
        let off: f32 = reduced.iter().zip(&exact).map(|(a, b)| (a - b).abs()).sum();
        let levels = off / exact.len() as f32 * 255.0 * 0.225;
        assert!(levels < 0.8, "{levels}");
    }
}

#[test]
fn broken_files_are_told_as_when_read_in_full() {
    let area = CropBox { top: 0, left: 0, height: 400, width: 400 };
    let whole = baseline();
    for kept in [0, 3, 200, whole.len() / 2, whole.len() - 2] {
        let file = ImageFile::new("some/file.jpg", whole[..kept].to_vec(), 3, true);
        let message = file.size().unwrap_err().to_string();
        let expected = decode("some/file.jpg", &whole[..kept], 3).unwrap_err().to_string();
        assert_eq!(message, expected);
        let part = LazyImage::resized_crop(&file, area, (40, 40), FILTER);
        assert_eq!(part.unwrap_err().to_string(), expected);
    }
    // A part outside the image, and one of nothing.
    let file = ImageFile::new("test", whole, 3, true);
    let outside = CropBox { left: 212, ..area };
    let message =
        LazyImage::resized_crop(&file, outside, (40, 40), FILTER).unwrap_err().to_string();
    assert!(message.contains("left: 212") && message.contains("427×611"), "{message}");
    assert!(LazyImage::resized_crop(&file, area, (0, 40), FILTER).is_err());
}

#[test]
fn damaged_files_never_bring_the_process_down() {
    let mut baseline_by_image = Vec::new();
    JpegEncoder::new(&mut baseline_by_image).encode_image(&scene()).unwrap();
    let mut rng = Rng::new(8, &[]);
    for whole in [baseline_by_image, jpeg(ColorSpace::JCS_RGB, true)] {
        for round in 0..60 {
            let mut bytes = whole.clone();
            // Headers in half the rounds, where most can go wrong.
            let end = if round % 2 == 0 { 700 } else { bytes.len() - 2 };
            for _ in 0..1 + rng.below(6) {
                bytes[2 + rng.below(end - 2)] = rng.below(256) as u8;
            }
            let file = ImageFile::new("test", bytes, 3, true);
            // The decoder of full images may panic; loaders catch that.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let (height, width) = file.size().ok()?;
                let area = CropBox { top: 0, left: 0, height, width };
                LazyImage::resized_crop(&file, area, (40, 40), FILTER).ok()
            }));
        }
    }
}
