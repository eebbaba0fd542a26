//! Pictures as pages take them.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::{Image, Pixels};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

/// Of pictures that are looked at, not measured.
const JPEG_QUALITY: u8 = 85;

/// The file `bytes` of type `mime` as a URL that holds it.
pub fn data_url(mime: &str, bytes: &[u8]) -> String {
    format!("data:{mime};base64,{}", STANDARD.encode(bytes))
}

/// A JPEG of an image of three channels.
///
/// # Errors
/// Another number of channels, or more than 65,535 pixels a side.
pub fn jpeg(image: &Image) -> Result<Vec<u8>> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    ensure!(channels == 3, "the picture has {channels} channels, but 3 are shown");
    let count = width * height;
    let bytes: Vec<u8> = match image.pixels() {
        Pixels::U8(pixels) => pixels.clone(),
        Pixels::F32(planes) => {
            let byte = |at: usize| (planes[at % 3 * count + at / 3] * 255.0).round() as u8;
            (0..3 * count).map(byte).collect()
        }
    };
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY);
    encoder.encode(&bytes, width as u32, height as u32, ExtendedColorType::Rgb8)?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_floats_give_the_same_picture() {
        // A red, a green and a blue row of 16 pixels each, as bytes and as planes.
        let (height, width) = (48, 16);
        let colour = |row: usize| row / 16;
        let bytes = (0..height * width * 3)
            .map(|at| if at % 3 == colour(at / 3 / width) { 255 } else { 0 })
            .collect();
        let planes = (0..3 * height * width)
            .map(|at| {
                f32::from(u8::from(at / (height * width) == colour(at % (height * width) / width)))
            })
            .collect();
        let of = |pixels| jpeg(&Image::new(width, height, 3, pixels).unwrap()).unwrap();
        let from_bytes = of(Pixels::U8(bytes));
        assert_eq!(from_bytes, of(Pixels::F32(planes)));
        let back = data::decode("a.jpg", &from_bytes, 3).unwrap();
        let Pixels::U8(pixels) = back.pixels() else { panic!("floats") };
        let middle = |row: usize| &pixels[3 * (row * width + 8)..][..3];
        for (row, wanted) in [(8, [254, 0, 0]), (24, [0, 255, 1]), (40, [0, 0, 254])] {
            let near = middle(row).iter().zip(wanted).all(|(a, b): (&u8, u8)| a.abs_diff(b) < 6);
            assert!(near, "{row}: {:?}", middle(row));
        }
    }
}
