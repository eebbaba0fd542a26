//! Pages as pictures: the photometric interpretations as Pillow converts them.

use image::{DynamicImage, ImageBuffer};

use super::super::Problem;
use super::super::numbers::Number;
use super::page::{Extra, Format, Page, Photometric};
use super::samples::Raster;

/// Whether the samples of `page` mean a picture, of grey levels or colours of up to 16 bits.
pub(super) fn is_picture(page: &Page) -> bool {
    let Some(beyond) = page.samples.checked_sub(colours(page.photometric)) else { return false };
    let integers = page.format == Format::Unsigned && page.bits <= 16;
    match page.photometric {
        // Any further band makes it one of several.
        Photometric::WhiteIsZero | Photometric::BlackIsZero => integers && beyond <= 1,
        Photometric::Rgb | Photometric::Cmyk | Photometric::Palette => integers,
        Photometric::YCbCr | Photometric::CieLab => page.bits == 8 && beyond == 0,
        Photometric::Other(_) => false,
    }
}

/// Samples of a pixel without extra ones.
fn colours(photometric: Photometric) -> usize {
    match photometric {
        Photometric::WhiteIsZero | Photometric::BlackIsZero | Photometric::Palette => 1,
        Photometric::Cmyk => 4,
        _ => 3,
    }
}

/// The picture that `raster` of `page` shows, which [`is_picture`]: of 16 bits if it has more
/// than 8.
pub(super) fn picture(page: &Page, mut raster: Raster) -> Result<DynamicImage, Problem> {
    let colours = colours(page.photometric);
    // Without a word on what it is, Pillow takes the sample behind grey or RGB as alpha.
    let alpha = match page.extra.first() {
        _ if page.samples == colours => Extra::Unspecified,
        None => Extra::Alpha,
        Some(&kind) => kind,
    };
    let kept = if alpha == Extra::Unspecified { colours } else { colours + 1 };
    match page.photometric {
        Photometric::Palette => palette(page, &raster),
        Photometric::Cmyk => {
            let samples = pick(scaled(&raster, 255), page.samples, 4);
            let rgb = samples.as_chunks().0.iter().flat_map(|&pixel| cmyk_to_rgb(pixel));
            image8(&raster, 3, rgb.collect())
        }
        Photometric::YCbCr => {
            ycbcr_to_rgb(&mut raster.data);
            let samples = std::mem::take(&mut raster.data);
            image8(&raster, 3, samples)
        }
        Photometric::CieLab => {
            let rgb = raster.data.as_chunks().0.iter().flat_map(|&pixel| lab_to_rgb(pixel));
            let rgb = rgb.collect();
            image8(&raster, 3, rgb)
        }
        _ if raster.number == Number::U16 => {
            let mut samples = pick(scaled(&raster, u16::MAX), page.samples, kept);
            levels(page, &mut samples, kept, alpha, u16::MAX);
            image16(&raster, kept, samples)
        }
        _ => {
            let plain = raster.bits == 8;
            let samples =
                if plain { std::mem::take(&mut raster.data) } else { scaled(&raster, u8::MAX) };
            let mut samples = pick(samples, page.samples, kept);
            levels(page, &mut samples, kept, alpha, u8::MAX);
            image8(&raster, kept, samples)
        }
    }
}

/// The samples in the range of 0 to `greatest`.
fn scaled<T: TryFrom<u32> + Default + Into<u32>>(raster: &Raster, greatest: T) -> Vec<T> {
    let whole = (1u32 << raster.bits) - 1;
    let greatest: u32 = greatest.into();
    let scale = |value: u32| {
        // At most 16 bits each: no overflow.
        T::try_from((value * greatest + whole / 2) / whole).unwrap_or_default()
    };
    if raster.number == Number::U16 {
        let samples = raster.data.as_chunks().0.iter();
        samples.map(|&sample| scale(u16::from_le_bytes(sample).into())).collect()
    } else {
        raster.data.iter().map(|&sample| scale(sample.into())).collect()
    }
}

/// The first `kept` of every `samples`.
fn pick<T: Copy>(all: Vec<T>, samples: usize, kept: usize) -> Vec<T> {
    if samples == kept {
        return all;
    }
    all.chunks_exact(samples).flat_map(|pixel| &pixel[..kept]).copied().collect()
}

/// Turns levels of white into those of black, and divides colours by their associated alpha.
fn levels<T>(page: &Page, samples: &mut [T], kept: usize, alpha: Extra, greatest: T)
where
    T: Copy + Into<u32> + TryFrom<u32>,
{
    let whole: u32 = greatest.into();
    let level = |value: u32| T::try_from(value.min(whole)).unwrap_or(greatest);
    if page.photometric == Photometric::WhiteIsZero {
        for pixel in samples.chunks_exact_mut(kept) {
            pixel[0] = level(whole - pixel[0].into());
        }
    }
    if alpha == Extra::AssociatedAlpha {
        for pixel in samples.chunks_exact_mut(kept) {
            let (colours, alpha) = pixel.split_at_mut(kept - 1);
            let alpha: u32 = alpha[0].into();
            for colour in colours {
                *colour =
                    level((*colour).into().saturating_mul(whole).checked_div(alpha).unwrap_or(0));
            }
        }
    }
}

fn palette(page: &Page, raster: &Raster) -> Result<DynamicImage, Problem> {
    let colours = page.colour_map.len() / 3;
    let index = |pixel: &[u8]| match raster.number {
        Number::U16 => usize::from(u16::from_le_bytes([pixel[0], pixel[1]])),
        _ => usize::from(pixel[0]),
    };
    let size = raster.number.size() * page.samples;
    let mut rgb = Vec::with_capacity(3 * raster.width * raster.height);
    for pixel in raster.data.chunks_exact(size) {
        let index = index(pixel);
        if index >= colours {
            return Err(format!("colour {index} is outside its palette of {colours}"));
        }
        let levels = (0..3).map(|colour| page.colour_map[index + colour * colours] / 256);
        rgb.extend(levels.map(|level| level.min(255) as u8));
    }
    image8(raster, 3, rgb)
}

/// The picture of so many channels, in the variants of [`DynamicImage`] for 1 to 4 of them.
macro_rules! image {
    ($raster:ident, $channels:ident, $samples:ident, $($count:pat => $variant:ident),*) => {{
        let (width, height) = ($raster.width as u32, $raster.height as u32);
        let image = match $channels {
            $( $count => {
                ImageBuffer::from_raw(width, height, $samples).map(DynamicImage::$variant)
            } )*
        };
        image.ok_or_else(|| "incomplete image".to_owned())
    }};
}

fn image8(raster: &Raster, channels: usize, samples: Vec<u8>) -> Result<DynamicImage, Problem> {
    image!(raster, channels, samples, 1 => ImageLuma8, 2 => ImageLumaA8, 3 => ImageRgb8, _ => ImageRgba8)
}

fn image16(raster: &Raster, channels: usize, samples: Vec<u16>) -> Result<DynamicImage, Problem> {
    image!(raster, channels, samples, 1 => ImageLuma16, 2 => ImageLumaA16, 3 => ImageRgb16, _ => ImageRgba16)
}

/// As in Pillow, whose inks are subtracted from white.
pub(in super::super) fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * light + 128;
        (light - ((product >> 8) + product).min(light << 8) / 256) as u8
    })
}

/// Full-range luma and chroma (JFIF's, and the default of TIFF) to RGB, in place.
pub(super) fn ycbcr_to_rgb(samples: &mut [u8]) {
    for [first, second, third] in samples.as_chunks_mut().0 {
        let luma = f32::from(*first);
        let (blue, red) = (f32::from(*second) - 128.0, f32::from(*third) - 128.0);
        let level = |value: f32| value.round() as u8;
        *first = level(luma + 1.402 * red);
        *second = level(luma - 0.344_136 * blue - 0.714_136 * red);
        *third = level(luma + 1.772 * blue);
    }
}

/// CIE L*a*b* of the white D50, a and b signed, to sRGB (IEC 61966-2-1, adapted to D50 as in ICC
/// profiles), as LittleCMS converts it for Pillow.
fn lab_to_rgb([l, a, b]: [u8; 3]) -> [u8; 3] {
    const WHITE: [f64; 3] = [0.9642, 1.0, 0.8249];
    const XYZ_TO_RGB: [[f64; 3]; 3] = [
        [3.133_856_1, -1.616_866_7, -0.490_614_6],
        [-0.978_768_4, 1.916_141_5, 0.033_454_0],
        [0.071_945_3, -0.228_991_4, 1.405_242_7],
    ];
    let y = (f64::from(l) * 100.0 / 255.0 + 16.0) / 116.0;
    let x = y + f64::from(a as i8) / 500.0;
    let z = y - f64::from(b as i8) / 200.0;
    let light = |f: f64| {
        if f > 24.0 / 116.0 { f.powi(3) } else { (f - 16.0 / 116.0) * 108.0 / 841.0 }
    };
    let xyz = [light(x) * WHITE[0], light(y) * WHITE[1], light(z) * WHITE[2]];
    XYZ_TO_RGB.map(|row| {
        let linear: f64 = row.iter().zip(xyz).map(|(weight, value)| weight * value).sum();
        let linear = linear.clamp(0.0, 1.0);
        let encoded = if linear <= 0.003_130_8 {
            12.92 * linear
        } else {
            1.055 * linear.powf(1.0 / 2.4) - 0.055
        };
        (encoded * 255.0).round() as u8
    })
}
