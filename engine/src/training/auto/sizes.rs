//! How large the images of a data set are.

use anyhow::{Result, bail};
use data::{Dataset, claimed_size};
use words::counted;

/// Files that are looked at, spread evenly over the data set.
const SAMPLE: usize = 64;

/// The median of the short sides of a sample of images, in pixels; by their headers.
///
/// # Errors
/// None of the sample tells its size.
pub fn short_side(dataset: &Dataset) -> Result<u64> {
    let count = SAMPLE.min(dataset.len());
    let mut first_problem = None;
    let mut sides = Vec::new();
    for index in (0..count).map(|number| number * dataset.len() / count) {
        let size = dataset.read(index).and_then(|bytes| claimed_size(dataset.name(index), &bytes));
        match size {
            Ok((width, height)) => sides.push(width.min(height)),
            Err(error) => first_problem = first_problem.or(Some(error)),
        }
    }
    sides.sort_unstable();
    match (sides.get(sides.len() / 2), first_problem) {
        (Some(&side), _) => Ok(side),
        (None, Some(problem)) => {
            let looked_at = counted(count, "image");
            bail!("of {looked_at} looked at none tells its size: {problem}")
        }
        (None, None) => bail!("there are no images"),
    }
}

/// The side of square crops: the largest multiple of `step` that is neither above `most` nor above
/// the images' short side, but at least `least` times `step`. With the reason.
pub fn crop_side(short: u64, step: i64, most: i64, least: i64) -> (i64, String) {
    let step = step.max(1);
    let (most, least) = ((most / step).max(1) * step, least * step);
    let images = i64::try_from(short).unwrap_or(i64::MAX) / step * step;
    if images < least {
        return (
            least,
            format!("{least} px are needed, the images have {short}, and are enlarged"),
        );
    }
    match images < most {
        true => (images, format!("the images' short side is {short} px")),
        false => {
            (most, format!("the images' short side is {short} px, of which this much is used"))
        }
    }
}

#[cfg(test)]
mod tests {
    use data::DatasetOptions;
    use image::RgbImage;

    use super::*;

    #[test]
    fn the_median_short_side_of_what_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Dataset::open(folder.path(), &DatasetOptions::default()).unwrap();
        for (name, width, height) in [("a", 90, 40), ("b", 30, 70), ("c", 50, 50)] {
            let file = folder.path().join(format!("{name}.png"));
            RgbImage::new(width, height).save(file).unwrap();
        }
        std::fs::write(folder.path().join("0.png"), "no picture").unwrap();
        assert_eq!(short_side(&open()).unwrap(), 40);

        for name in ["a", "b", "c"] {
            std::fs::remove_file(folder.path().join(format!("{name}.png"))).unwrap();
        }
        let error = short_side(&open()).unwrap_err().to_string();
        assert!(error.contains("of 1 image looked at none") && error.contains("0.png"), "{error}");
    }

    #[test]
    fn crops_are_not_larger_than_the_images() {
        let side = |short, most| crop_side(short, 32, most, 2).0;
        assert_eq!(side(1000, 224), 224);
        assert_eq!(side(200, 224), 192);
        assert_eq!(side(97, 128), 96);
        assert_eq!(side(32, 128), 64);
        assert!(crop_side(32, 32, 128, 2).1.contains("enlarged"));
    }
}
