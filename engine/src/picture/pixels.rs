//! Normalised image tensors back to pixels.

use backbone::Error;
use image::{Rgb, RgbImage};
use tch::{Device, Kind, Tensor};

use super::Result;

/// A batch as pictures.
#[derive(Debug)]
pub struct Pixels {
    /// One per image of the batch.
    pub images: Vec<RgbImage>,
    /// Which channels are shown, where those are not all: a clause for a
    /// caption.
    pub remark: Option<String>,
}

/// Pictures of `images` `[N, C, H, W]`, normalised with `mean` and `std` (one
/// value a channel, in units of 1 = white): values are scaled back, cut to
/// 0..=255 and rounded; NaN becomes black.
///
/// One channel is shown grey, three as red, green and blue. Of more than three
/// the first three are shown, of two the first, and
/// [`remark`](Pixels::remark) says so.
///
/// # Errors
/// Another shape, no pixels, a type that is not floating, or another number of
/// means or deviations than channels.
pub fn to_rgb(images: &Tensor, mean: &[f64], std: &[f64]) -> Result<Pixels> {
    let size = images.size();
    let &[_, channels, height, width] = size.as_slice() else {
        return Err(Error::invalid("images", format!("{size:?}"), "it must be [N, C, H, W]").into());
    };
    if images.numel() == 0 || !images.is_floating_point() {
        let value = format!("{:?} {size:?}", images.kind());
        let rule = "it must hold at least one pixel of a floating type";
        return Err(Error::invalid("images", value, rule).into());
    }
    for (name, values) in [("mean", mean), ("std", std)] {
        if values.len() as i64 != channels {
            let rule = format!("the images have {channels} channels and need a value for each");
            return Err(Error::invalid(name, format!("{values:?}"), rule).into());
        }
    }

    let shown = if channels >= 3 { 3 } else { 1 };
    let per_channel = |values: &[f64]| Tensor::from_slice(&values[..shown]).view([-1, 1, 1]);
    let images = images.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let images = images.narrow(1, 0, shown as i64) * per_channel(std) + per_channel(mean);
    // What a NaN becomes as a byte differs between machines.
    let bytes = (images.nan_to_num(0.0, 1.0, 0.0) * 255.0)
        .round()
        .clamp(0.0, 255.0)
        .expand([-1, shown as i64, height, width], false)
        .permute([0, 2, 3, 1])
        .to_kind(Kind::Uint8);
    let bytes = Vec::<u8>::try_from(bytes.contiguous().view([-1])).map_err(Error::from)?;

    let pixels = (height * width) as usize;
    let picture = |bytes: &[u8]| {
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let start = (y as usize * width as usize + x as usize) * shown;
            // A grey pixel is its one value three times.
            Rgb(std::array::from_fn(|channel| bytes[start + channel % shown]))
        })
    };
    Ok(Pixels {
        images: bytes.chunks(pixels * shown).map(picture).collect(),
        remark: match channels {
            1 | 3 => None,
            2 => Some("channel 1 of 2 shown".to_owned()),
            _ => Some(format!("channels 1-3 of {channels} shown")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
    const STD: [f64; 3] = [0.229, 0.224, 0.225];

    #[test]
    fn every_level_survives_normalisation() {
        // All 256 levels in each channel, in float32 as the network sees them.
        let level = Tensor::arange(256, (Kind::Float, Device::Cpu)).view([1, 1, 16, 16]) / 255.0;
        let column =
            |values: &[f64]| Tensor::from_slice(values).to_kind(Kind::Float).view([3, 1, 1]);
        let images = (level - column(&MEAN)) / column(&STD);
        let pixels = to_rgb(&images, &MEAN, &STD).unwrap();
        assert!(pixels.remark.is_none());
        for (x, y, color) in pixels.images[0].enumerate_pixels() {
            assert_eq!(color.0, [(y * 16 + x) as u8; 3]);
        }
    }

    #[test]
    fn values_are_cut_and_channels_kept_apart() {
        let images = Tensor::from_slice(&[-3.0, 0.5, f64::NAN, 7.0, 0.2, f64::INFINITY]);
        let pixels = to_rgb(&images.view([1, 3, 1, 2]), &[0.0; 3], &[1.0; 3]).unwrap();
        assert_eq!(pixels.images[0].get_pixel(0, 0).0, [0, 0, 51]);
        assert_eq!(pixels.images[0].get_pixel(1, 0).0, [128, 255, 255]);
    }

    #[test]
    fn other_channel_counts_show_what_they_can_and_say_so() {
        for (channels, expected, remark) in [
            (1, [51; 3], None),
            (2, [51; 3], Some("channel 1 of 2 shown")),
            (5, [51, 102, 153], Some("channels 1-3 of 5 shown")),
        ] {
            let ramp = Tensor::arange(channels, (Kind::Double, Device::Cpu)).view([1, -1, 1, 1]);
            let images = (ramp + 1.0) / 5.0;
            let (mean, std) = (vec![0.0; channels as usize], vec![1.0; channels as usize]);
            let pixels = to_rgb(&images, &mean, &std).unwrap();
            assert_eq!(pixels.images[0].get_pixel(0, 0).0, expected);
            assert_eq!(pixels.remark.as_deref(), remark);
        }
    }

    #[test]
    fn misfits_are_refused() {
        let refuse = |images: Tensor, mean: &[f64]| {
            to_rgb(&images, mean, &[1.0; 3]).unwrap_err().to_string()
        };
        let cpu = (Kind::Float, Device::Cpu);
        let message = refuse(Tensor::zeros([3, 4, 4], cpu), &MEAN);
        assert_eq!(message, "images is [3, 4, 4], but it must be [N, C, H, W]");
        let message = refuse(Tensor::zeros([1, 3, 4, 4], cpu), &MEAN[..2]);
        assert!(message.starts_with("mean is [0.485, 0.456], but the images have 3"), "{message}");
        let message = refuse(Tensor::zeros([0, 3, 4, 4], cpu), &MEAN);
        assert!(message.contains("at least one pixel"), "{message}");
        let message = refuse(Tensor::zeros([1, 3, 4, 4], (Kind::Uint8, Device::Cpu)), &MEAN);
        assert!(message.starts_with("images is Uint8 [1, 3, 4, 4]"), "{message}");
    }
}
