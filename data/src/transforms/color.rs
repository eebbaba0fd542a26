//! Operations on pixels' values, with the arithmetic of Pillow's `ImageOps` and `ImageEnhance`,
//! which torchvision and timm call.

use super::super::decode::luma_of;

/// 8-bit RGB pixels, interleaved `[H, W, 3]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rgb {
    pub width: usize,
    pub height: usize,
    pub samples: Vec<u8>,
}

impl Rgb {
    /// Replaces every sample by what `table` has for it.
    fn look_up(&mut self, table: impl Fn(u8) -> u8) {
        let table: [u8; 256] = std::array::from_fn(|level| table(level as u8));
        self.samples.iter_mut().for_each(|sample| *sample = table[usize::from(*sample)]);
    }

    /// Replaces every sample by what its channel's table has for it; the tables are made of the
    /// channel's histogram, none to leave the channel.
    fn look_up_by_histogram(&mut self, table: impl Fn(&[u64; 256]) -> Option<[u8; 256]>) {
        for channel in 0..3 {
            let mut histogram = [0; 256];
            let samples = self.samples[channel..].iter().step_by(3);
            samples.for_each(|&sample| histogram[usize::from(sample)] += 1);
            if let Some(table) = table(&histogram) {
                let samples = self.samples[channel..].iter_mut().step_by(3);
                samples.for_each(|sample| *sample = table[usize::from(*sample)]);
            }
        }
    }

    pub fn invert(&mut self) {
        self.look_up(|level| 255 - level);
    }

    /// Inverts what is not below `threshold`.
    pub fn solarize(&mut self, threshold: f64) {
        self.look_up(|level| if f64::from(level) < threshold { level } else { 255 - level });
    }

    /// Adds to what is below 128.
    pub fn solarize_add(&mut self, addend: u8) {
        self.look_up(|level| if level < 128 { level.saturating_add(addend) } else { level });
    }

    /// Keeps the upper `bits` ≤ 8.
    pub fn posterize(&mut self, bits: u32) {
        let mask = 0xff_u8.checked_shl(8 - bits).unwrap_or(0);
        self.look_up(|level| level & mask);
    }

    /// Stretches every channel to 0..=255.
    pub fn auto_contrast(&mut self) {
        self.look_up_by_histogram(|histogram| {
            let low = histogram.iter().position(|&count| count > 0)?;
            let high = histogram.iter().rposition(|&count| count > 0)?;
            if high <= low {
                return None;
            }
            let scale = 255.0 / (high - low) as f64;
            let offset = -(low as f64) * scale;
            // The conversion cuts to 0..=255.
            Some(std::array::from_fn(|level| (level as f64 * scale + offset) as u8))
        });
    }

    /// Spreads every channel's values so that all are about as frequent.
    pub fn equalize(&mut self) {
        self.look_up_by_histogram(|histogram| {
            let highest = histogram.iter().rfind(|&&count| count > 0)?;
            let step = (histogram.iter().sum::<u64>() - highest) / 255;
            if step == 0 {
                return None;
            }
            let mut below = step / 2;
            Some(std::array::from_fn(|level| {
                let value = below / step;
                below += histogram[level];
                value.min(255) as u8
            }))
        });
    }

    /// From black (0) through the image (1) on.
    pub fn brightness(&mut self, factor: f64) {
        self.look_up(|level| blend(0, level, factor as f32));
    }

    /// From the grey of the mean luma (0) through the image (1) on.
    pub fn contrast(&mut self, factor: f64) {
        let pixels = self.samples.as_chunks::<3>().0;
        let sum: u64 = pixels.iter().map(|&pixel| u64::from(luma_of(pixel))).sum();
        let mean = (sum as f64 / pixels.len() as f64 + 0.5) as u8;
        self.look_up(|level| blend(mean, level, factor as f32));
    }

    /// From the luma (0) through the image (1) on: saturation.
    pub fn color(&mut self, factor: f64) {
        for pixel in self.samples.as_chunks_mut::<3>().0 {
            let luma = luma_of(*pixel);
            *pixel = pixel.map(|level| blend(luma, level, factor as f32));
        }
    }

    /// From a 3 × 3 smoothing (0) through the image (1) on. The outermost pixels stay.
    pub fn sharpness(&mut self, factor: f64) {
        if self.width < 3 || self.height < 3 {
            return;
        }
        let stride = 3 * self.width;
        let original = self.samples.clone();
        for row in 1..self.height - 1 {
            for at in row * stride + 3..(row + 1) * stride - 3 {
                let line = |at: usize| {
                    [at - 3, at, at + 3].iter().map(|&at| u32::from(original[at])).sum::<u32>()
                };
                let centre = original[at];
                // Weights 1 around and 5 within, over 13, which never leaves exactly a half.
                let sum = line(at - stride) + line(at) + line(at + stride) + 4 * u32::from(centre);
                let smooth = (2 * sum + 13) / 26;
                self.samples[at] = blend(smooth as u8, centre, factor as f32);
            }
        }
    }
}

/// Pillow's `blend` of a degenerate and an original sample, in single precision, cut towards 0.
fn blend(degenerate: u8, original: u8, factor: f32) -> u8 {
    let (from, to) = (f32::from(degenerate), f32::from(original));
    (from + factor * (to - from)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(levels: &[u8]) -> Rgb {
        let samples = levels.iter().flat_map(|&level| [level; 3]).collect();
        Rgb { width: levels.len(), height: 1, samples }
    }

    fn after(levels: &[u8], operation: impl Fn(&mut Rgb)) -> Vec<u8> {
        let mut image = grey(levels);
        operation(&mut image);
        assert!(image.samples.chunks(3).all(|pixel| pixel.iter().all(|&level| level == pixel[0])));
        image.samples.into_iter().step_by(3).collect()
    }

    #[test]
    fn values_by_hand() {
        let levels = [0, 3, 127, 128, 200, 255];
        assert_eq!(after(&levels, Rgb::invert), [255, 252, 128, 127, 55, 0]);
        assert_eq!(after(&levels, |i| i.solarize(127.5)), [0, 3, 127, 127, 55, 0]);
        assert_eq!(after(&levels, |i| i.solarize(256.0)), levels);
        assert_eq!(after(&levels, |i| i.solarize_add(110)), [110, 113, 237, 128, 200, 255]);
        assert_eq!(after(&levels, |i| i.posterize(2)), [0, 0, 64, 128, 192, 192]);
        assert_eq!(after(&levels, |i| i.posterize(8)), levels);
        assert_eq!(after(&levels, |i| i.posterize(0)), [0; 6]);
        assert_eq!(after(&levels, |i| i.brightness(0.5)), [0, 1, 63, 64, 100, 127]);
        assert_eq!(after(&levels, |i| i.brightness(1.9)), [0, 5, 241, 243, 255, 255]);
        // The mean is 118.83.
        assert_eq!(after(&levels, |i| i.contrast(0.0)), [119; 6]);
        assert_eq!(after(&levels, |i| i.color(0.3)), levels);
        assert_eq!(after(&[50, 100, 150], Rgb::auto_contrast), [0, 127, 255]);
    }

    #[test]
    fn nothing_to_stretch_is_left() {
        assert_eq!(after(&[7, 7], Rgb::auto_contrast), [7, 7]);
        // Too few pixels for a step.
        assert_eq!(after(&[7, 9, 200], Rgb::equalize), [7, 9, 200]);
        let mut narrow = grey(&[1, 100]);
        narrow.sharpness(2.0);
        assert_eq!(narrow, grey(&[1, 100]));
    }
}
