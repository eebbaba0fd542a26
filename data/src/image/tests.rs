use super::*;

fn gradient(channels: usize) -> Image {
    let samples = (0..6 * 5 * channels).map(|i| i as u8).collect();
    Image::new(6, 5, channels, Pixels::U8(samples)).unwrap()
}

/// The same numbers as floats, planar.
fn planar(image: &Image) -> Image {
    let Pixels::U8(samples) = image.pixels() else { unreachable!() };
    let channels = image.channels();
    let planes = (0..channels)
        .flat_map(|c| samples[c..].iter().step_by(channels).map(|&v| f32::from(v)))
        .collect();
    Image::new(image.width(), image.height(), channels, Pixels::F32(planes)).unwrap()
}

#[test]
fn a_flip_turns_rows_around_and_leaves_colours() {
    let image = Image::new(2, 2, 3, Pixels::U8((0..12).collect())).unwrap();
    let Pixels::U8(flipped) = image.flip_horizontal().pixels else { unreachable!() };
    assert_eq!(flipped, [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
    let image = gradient(3);
    assert_eq!(planar(&image).flip_horizontal(), planar(&image.flip_horizontal()));
    assert_eq!(image.flip_horizontal().flip_horizontal(), image);
}

#[test]
fn crops_the_same_pixels_interleaved_and_planar() {
    let image = gradient(3);
    let area = CropBox { top: 1, left: 2, height: 3, width: 4 };
    let cropped = image.crop(area).unwrap();
    let Pixels::U8(samples) = cropped.pixels() else { unreachable!() };
    assert_eq!(samples[..3], [(6 + 2) * 3, (6 + 2) * 3 + 1, (6 + 2) * 3 + 2]);
    assert_eq!(samples[samples.len() - 1], (3 * 6 + 5) * 3 + 2);
    assert_eq!(planar(&image).crop(area).unwrap(), planar(&cropped));
}

#[test]
fn resizes_bytes_and_floats_alike() {
    for channels in [1, 3] {
        let image = gradient(channels);
        let bytes = image.resize((3, 9), Interpolation::Bicubic).unwrap();
        let floats = planar(&image).resize((3, 9), Interpolation::Bicubic).unwrap();
        let (Pixels::F32(a), Pixels::F32(b)) = (planar(&bytes).pixels, floats.pixels) else {
            unreachable!()
        };
        // Two passes, each rounded to whole levels.
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1.01), "{a:?} {b:?}");
    }
}

#[test]
fn a_resized_crop_is_the_crop_resized() {
    for channels in [1, 3, 4] {
        let samples = (0..61 * 47 * channels).map(|i| (i * i % 251) as u8).collect();
        let image = Image::new(61, 47, channels, Pixels::U8(samples)).unwrap();
        let area = CropBox { top: 5, left: 9, height: 40, width: 37 };
        for image in [image.clone(), planar(&image)] {
            for size in [(16, 16), (64, 50), (40, 20), (40, 37)] {
                let direct = image.resized_crop(area, size, Interpolation::Bicubic).unwrap();
                let cropped = image.crop(area).unwrap();
                let copied = match size {
                    (40, 37) => cropped,
                    _ => cropped.resize(size, Interpolation::Bicubic).unwrap(),
                };
                assert!(direct == copied, "{channels} channels to {size:?}");
            }
        }
    }
}

#[test]
fn transparent_pixels_give_no_colour_when_shrunk() {
    let samples = vec![200, 100, 50, 255, 0, 255, 0, 0];
    let image = Image::new(2, 1, 4, Pixels::U8(samples)).unwrap();
    let shrunk = image.resize((1, 1), Interpolation::Bilinear).unwrap();
    let Pixels::U8(samples) = shrunk.pixels() else { unreachable!() };
    assert!(samples[0].abs_diff(200) <= 2 && samples[1].abs_diff(100) <= 2, "{samples:?}");
    assert!(samples[3].abs_diff(128) <= 1, "{samples:?}");
}

#[test]
fn refuses_what_does_not_fit() {
    let area = CropBox { top: 0, left: 3, height: 2, width: 4 };
    let message = gradient(3).crop(area).unwrap_err().to_string();
    assert!(message.contains("left: 3") && message.contains("image of 5×6"), "{message}");
    let overflowing = CropBox { top: usize::MAX, left: 0, height: 2, width: 1 };
    assert!(gradient(3).crop(overflowing).is_err());
    let message = gradient(1).resize((0, 4), Interpolation::Bicubic).unwrap_err().to_string();
    assert!(message.contains("0×4"), "{message}");
    let message = Image::new(2, 2, 3, Pixels::U8(vec![0; 11])).unwrap_err().to_string();
    assert!(message.contains("number of samples is 11"), "{message}");
    let message = Image::new(1, 1, 5, Pixels::U8(vec![0; 5])).unwrap_err().to_string();
    assert!(message.contains("1, 3 or 4"), "{message}");
}
