//! Masks of cells pasted into the boxes they were predicted for.

use tch::Tensor;

use crate::structures::Bitmap;

/// Pastes each of `masks` (`[N, 1, M, M]`, probabilities) into its box (`[N, 4]`)
/// in an image of `(height, width)`; a pixel belongs to the object where the
/// interpolated probability is at least `threshold`.
pub fn paste_masks(
    masks: &Tensor,
    boxes: &Tensor,
    size: (usize, usize),
    threshold: f32,
) -> Vec<Bitmap> {
    each(masks, boxes, |mask, side, area| paste_mask(mask, side, area, size, threshold))
}

/// [`paste_masks`] as torchvision does it.
pub fn paste_masks_torchvision(
    masks: &Tensor,
    boxes: &Tensor,
    size: (usize, usize),
    threshold: f32,
) -> Vec<Bitmap> {
    each(masks, boxes, |mask, side, area| paste_mask_torchvision(mask, side, area, size, threshold))
}

/// One mask.
pub fn paste_mask(
    _mask: &[f32],
    _side: usize,
    _area: [f32; 4],
    _size: (usize, usize),
    _threshold: f32,
) -> Bitmap {
    todo!()
}

/// One mask.
pub fn paste_mask_torchvision(
    _mask: &[f32],
    _side: usize,
    _area: [f32; 4],
    _size: (usize, usize),
    _threshold: f32,
) -> Bitmap {
    todo!()
}

fn each(
    masks: &Tensor,
    boxes: &Tensor,
    paste: impl Fn(&[f32], usize, [f32; 4]) -> Bitmap,
) -> Vec<Bitmap> {
    let side = masks.size()[3] as usize;
    let masks = Vec::<f32>::try_from(masks.flatten(0, -1)).expect("numbers");
    let boxes = Vec::<f32>::try_from(boxes.flatten(0, -1)).expect("numbers");
    masks
        .chunks_exact(side * side)
        .zip(boxes.chunks_exact(4))
        .map(|(mask, row)| paste(mask, side, [row[0], row[1], row[2], row[3]]))
        .collect()
}
