//! From images to what was found in them, in the pixels of the original files.

use anyhow::{Context, Result};
use backbone::Mode;
use tch::{Device, Kind, Tensor};

use crate::data::{DetectionLoader, EvalTransform};
use crate::evaluation::{Detection, ImageDetections, RleMask};
use crate::modeling::MaskRcnn;
use crate::ops::{MaskPaste, paste_masks};
use crate::structures::{Boxes, Detections};

/// From this probability on a pixel belongs to the object.
const MASK_THRESHOLD: f32 = 0.5;

/// What the model found in an image that was fed with `fed` (height, width)
/// pixels, in the pixels of the file, which has `original`: boxes scaled and cut
/// at the edges, those with nothing left dropped, masks pasted.
///
/// # Errors
/// Results that are no vectors of numbers.
fn postprocess(
    found: &Detections,
    (fed_height, fed_width): (usize, usize),
    original: (usize, usize),
    paste: MaskPaste,
) -> Result<Vec<Detection>> {
    let (height, width) = (original.0 as f64, original.1 as f64);
    let (x, y) = (width / fed_width as f64, height / fed_height as f64);
    let boxes = found.boxes.tensor().to_device(Device::Cpu);
    let limits = Tensor::from_slice(&[width, height, width, height]).to_kind(boxes.kind());
    let scales = Tensor::from_slice(&[x, y, x, y]).to_kind(boxes.kind());
    let boxes = (boxes * scales).clamp_min(0.0).minimum(&limits);
    let sides = boxes.narrow(1, 2, 2) - boxes.narrow(1, 0, 2);
    let kept = sides.gt(0.0).all_dim(1, false).nonzero().squeeze_dim(1);
    let pick = |tensor: &Tensor| tensor.to_device(Device::Cpu).index_select(0, &kept);
    let boxes = boxes.index_select(0, &kept);
    let masks = match &found.masks {
        None => Vec::new(),
        Some(masks) => paste_masks(&pick(masks), &boxes, original, MASK_THRESHOLD, paste),
    };
    let found = Detections {
        boxes: Boxes(boxes),
        scores: pick(&found.scores),
        classes: pick(&found.classes),
        masks: None,
    };
    let mut rows = Detection::from_model(&found, &[])?;
    for (row, mask) in rows.iter_mut().zip(&masks) {
        row.mask = Some(RleMask::from_rle(mask));
    }
    Ok(rows)
}

/// What a model found in one image, before it is brought to pixels of a picture of it.
#[derive(Debug)]
pub struct Found {
    detections: Detections,
    /// (height, width) of the image as it was fed.
    fed: (usize, usize),
    paste: MaskPaste,
}

impl Found {
    /// What the model finds in one image.
    ///
    /// # Errors
    /// An image that is no picture of 8 bits.
    pub fn in_image(
        model: &MaskRcnn,
        mode: &Mode,
        transform: &EvalTransform,
        image: data::Image,
    ) -> Result<Self> {
        let fed = to_tensor(&transform.apply(image)?)?;
        let mut found = model.infer(std::slice::from_ref(&fed), mode)?;
        let detections = found.pop().context("the model gave nothing for the image")?;
        Ok(Self { detections, fed: side_lengths(&fed), paste: model.config().mask_paste })
    }

    /// In the pixels of a picture of the image that has `size` (height, width), be it the file or
    /// a smaller one.
    ///
    /// # Errors
    /// Results that are no vectors of numbers.
    pub fn in_pixels(&self, size: (usize, usize)) -> Result<Vec<Detection>> {
        postprocess(&self.detections, self.fed, size, self.paste)
    }
}

/// What the model finds in one image of the size it has in its file.
///
/// # Errors
/// An image that is no picture of 8 bits.
pub fn detect_image(
    model: &MaskRcnn,
    mode: &Mode,
    transform: &EvalTransform,
    image: data::Image,
) -> Result<Vec<Detection>> {
    let size = (image.height(), image.width());
    Found::in_image(model, mode, transform, image)?.in_pixels(size)
}

/// Detects in every image of `loader` and hands what was found to `found_in`, image by image.
/// `renumber` gives the data set's class for the model's; what has none is dropped. `done` is told
/// of every batch's images.
///
/// # Errors
/// Images that can't be read beyond the loader's share, and those of `found_in`.
pub fn detect(
    model: &MaskRcnn,
    mode: &Mode,
    loader: &DetectionLoader,
    mut found_in: impl FnMut(ImageDetections) -> crate::Result<()>,
    renumber: impl Fn(usize) -> Option<usize>,
    mut done: impl FnMut(usize),
) -> Result<()> {
    let paste = model.config().mask_paste;
    for batch in loader.batches(0..1, 0) {
        let samples = batch?.images;
        if samples.is_empty() {
            continue;
        }
        let images: Vec<Tensor> = samples.iter().map(|s| s.image.shallow_clone()).collect();
        let found = model.infer(&images, mode)?;
        for (sample, found) in samples.iter().zip(&found) {
            let mut found = postprocess(found, side_lengths(&sample.image), sample.size, paste)?;
            found.retain_mut(|detection| match renumber(detection.class) {
                Some(class) => {
                    detection.class = class;
                    true
                }
                None => false,
            });
            let image_id = sample.image_id;
            found_in(ImageDetections { image_id, detections: found })
                .with_context(|| format!("image {image_id}"))?;
        }
        done(samples.len());
    }
    Ok(())
}

/// Height and width of `[3, H, W]`.
fn side_lengths(image: &Tensor) -> (usize, usize) {
    let size = image.size();
    (size[1] as usize, size[2] as usize)
}

/// An image of the loader as bytes, `[3, H, W]` to RGB.
pub fn to_bytes(image: &data::Image) -> Result<image::RgbImage> {
    let (height, width) = (image.height(), image.width());
    let data::Pixels::U8(pixels) = image.pixels() else {
        anyhow::bail!("the image has floating-point samples, but detection works on 8 bits");
    };
    image::RgbImage::from_raw(width as u32, height as u32, pixels.clone())
        .context("the image has not three channels")
}

/// An image as the model takes it, `[3, H, W]` of bytes.
fn to_tensor(image: &data::Image) -> Result<Tensor> {
    let (height, width) = (image.height() as i64, image.width() as i64);
    let bytes = to_bytes(image)?;
    let tensor = Tensor::from_slice(bytes.as_raw()).view([height, width, 3]);
    Ok(tensor.permute([2, 0, 1]).contiguous().to_kind(Kind::Uint8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(boxes: &[f32], masks: bool) -> Detections {
        let count = boxes.len() as i64 / 4;
        Detections {
            boxes: Boxes(Tensor::from_slice(boxes).view([count, 4])),
            scores: Tensor::from_slice(&[0.9f32, 0.8, 0.7][..count as usize]),
            classes: Tensor::from_slice(&[2i64, 0, 1][..count as usize]),
            masks: masks.then(|| Tensor::ones([count, 1, 28, 28], tch::kind::FLOAT_CPU)),
        }
    }

    #[test]
    fn boxes_come_back_to_the_file_and_end_at_its_edges() {
        // Fed at twice the size; the second box lies outside.
        let boxes = [2.0, 4.0, 12.0, 300.0, 210.0, 5.0, 220.0, 9.0, 0.0, 0.0, 8.0, 8.0];
        let found = found(&boxes, true);
        let paste = MaskPaste::Detectron2;
        let detections = postprocess(&found, (100, 200), (50, 100), paste).unwrap();
        let told: Vec<_> = detections.iter().map(|d| (d.class, d.bbox)).collect();
        assert_eq!(told, [(2, [1.0, 2.0, 5.0, 48.0]), (1, [0.0, 0.0, 4.0, 4.0])]);
        let mask = detections[1].mask.as_ref().unwrap();
        assert_eq!(mask.size(), (50, 100));
        assert_eq!(mask.bounding_box(), [0.0, 0.0, 4.0, 4.0]);
    }

    #[test]
    fn nothing_found_is_nothing() {
        let found = found(&[], true);
        let paste = MaskPaste::Torchvision;
        assert!(postprocess(&found, (10, 10), (20, 20), paste).unwrap().is_empty());
    }
}
