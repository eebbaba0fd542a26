//! Samples to floats of zero mean and unit variance.

use super::super::image::{Image, Pixels};
use crate::{Error, Result};

/// Mean of ImageNet's red, green and blue, in 0..=1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's red, green and blue, in 0..=1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// torchvision's `ToTensor` and `Normalize` in one pass: `(v / 255 − mean) / std` for bytes,
/// `(v − mean) / std` for floats.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
    /// The result for every byte, a table for each channel.
    table: Vec<[f32; 256]>,
}

impl Normalize {
    /// One mean and standard deviation a channel, for samples in 0..=1.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are none, their numbers differ, a mean is not finite, or a
    /// standard deviation is not positive and finite.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Self> {
        if mean.is_empty() || mean.iter().any(|m| !m.is_finite()) {
            let rule = "one finite number for each channel is needed";
            return Err(Error::invalid("mean", format!("{mean:?}"), rule));
        }
        if std.len() != mean.len() || std.iter().any(|s| !(s.is_normal() && *s > 0.0)) {
            let rule = format!("{} positive numbers are needed, as many as means", mean.len());
            return Err(Error::invalid("std", format!("{std:?}"), rule));
        }
        let value = |byte: usize, mean: f32, std: f32| (byte as f32 / 255.0 - mean) / std;
        let table = mean
            .iter()
            .zip(&std)
            .map(|(&mean, &std)| std::array::from_fn(|byte| value(byte, mean, std)))
            .collect();
        Ok(Normalize { mean, std, table })
    }

    /// ImageNet's, for three channels.
    pub fn imagenet() -> Self {
        Normalize::new(IMAGENET_MEAN.to_vec(), IMAGENET_STD.to_vec())
            .expect("three finite means and positive deviations")
    }

    /// `[C, H, W]` of a sample of (height, width).
    pub(super) fn shape(&self, (height, width): (usize, usize)) -> [usize; 3] {
        [self.channels(), height, width]
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// The mean of every channel.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The standard deviation of every channel.
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// Writes the normalised image, mirrored if `flip`, into `out`, `[C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the image's channels aren't this many or `out` has another size.
    pub fn write(&self, image: &Image, flip: bool, out: &mut [f32]) -> Result<()> {
        let (width, channels) = (image.width(), self.channels());
        if image.channels() != channels {
            let rule = format!("mean and std are given for {channels}");
            return Err(Error::invalid("channels of the image", image.channels(), rule));
        }
        let area = width * image.height();
        if out.len() != channels * area {
            let rule = format!("the image has {} samples", channels * area);
            return Err(Error::invalid("length of the output", out.len(), rule));
        }

        for (c, plane) in out.chunks_exact_mut(area).enumerate() {
            match image.pixels() {
                Pixels::U8(samples) => {
                    let table = &self.table[c];
                    let rows = samples.chunks_exact(width * channels);
                    for (row, target) in rows.zip(plane.chunks_exact_mut(width)) {
                        let values = row[c..].iter().step_by(channels);
                        fill(target, values.map(|&byte| table[usize::from(byte)]), flip);
                    }
                }
                Pixels::F32(samples) => {
                    let (mean, std) = (self.mean[c], self.std[c]);
                    let rows = samples[c * area..][..area].chunks_exact(width);
                    for (row, target) in rows.zip(plane.chunks_exact_mut(width)) {
                        fill(target, row.iter().map(|&value| (value - mean) / std), flip);
                    }
                }
            }
        }
        Ok(())
    }
}

fn fill(target: &mut [f32], values: impl Iterator<Item = f32>, flip: bool) {
    if flip {
        target.iter_mut().rev().zip(values).for_each(|(out, value)| *out = value);
    } else {
        target.iter_mut().zip(values).for_each(|(out, value)| *out = value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_planes_of_normalised_floats() {
        let image = Image::new(2, 1, 3, Pixels::U8(vec![0, 51, 255, 102, 153, 204])).unwrap();
        let normalize = Normalize::new(vec![0.0, 0.2, 1.0], vec![1.0, 0.5, 2.0]).unwrap();
        let mut out = [0.0; 6];
        normalize.write(&image, false, &mut out).unwrap();
        let expected = [0.0, 0.4, 0.0, 0.8, 0.0, -0.1];
        // One rounding of a float32 near 1.
        assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
        let mut flipped = [0.0; 6];
        normalize.write(&image, true, &mut flipped).unwrap();
        assert_eq!(flipped, [out[1], out[0], out[3], out[2], out[5], out[4]]);
    }

    #[test]
    fn floats_are_taken_as_they_are() {
        let image = Image::new(2, 1, 1, Pixels::F32(vec![3.0, -1.0])).unwrap();
        let mut out = [0.0; 2];
        Normalize::new(vec![1.0], vec![2.0]).unwrap().write(&image, true, &mut out).unwrap();
        assert_eq!(out, [-1.0, 1.0]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let message = |mean: &[f32], std: &[f32]| {
            Normalize::new(mean.to_vec(), std.to_vec()).unwrap_err().to_string()
        };
        assert!(message(&[0.5; 3], &[0.2, 0.2]).contains("std is [0.2, 0.2], but 3 positive"));
        assert!(message(&[0.5], &[0.0]).contains("positive"));
        assert!(message(&[f32::NAN], &[1.0]).contains("finite"));
        assert!(message(&[], &[]).contains("mean is []"));
        let image = Image::new(1, 1, 1, Pixels::U8(vec![0])).unwrap();
        let message = Normalize::imagenet().write(&image, false, &mut [0.0; 3]);
        assert!(message.unwrap_err().to_string().contains("given for 3"));
    }
}
