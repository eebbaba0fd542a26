//! What the mask branch learns from.

use tch::{Kind, Tensor};

use crate::Result;
use crate::modeling::config::MaskTargets;
use crate::structures::{Bitmap, InstanceMask};

/// The mask of object `objects[i]` in the cells of row i of `boxes` (`[P, 4]`):
/// `[P, side, side]`, float32, on the CPU. The image has `size` (height, width).
///
/// # Errors
/// An image too large to draw polygons in.
pub(super) fn mask_targets(
    masks: &[InstanceMask],
    objects: &[i64],
    boxes: &Tensor,
    size: (i64, i64),
    side: i64,
    rule: MaskTargets,
) -> Result<Tensor> {
    let boxes = boxes.to_kind(Kind::Double).reshape([-1]);
    let boxes = Vec::<f64>::try_from(&boxes).expect("a vector of numbers");
    let rows = boxes.chunks_exact(4).map(|row| [row[0], row[1], row[2], row[3]]);
    let cells = side as usize;
    let mut drawn: Vec<Option<Bitmap>> = masks.iter().map(|_| None).collect();
    let mut values = Vec::with_capacity(objects.len() * cells * cells);
    for (&object, area) in objects.iter().zip(rows) {
        let (mask, drawn) = (&masks[object as usize], &mut drawn[object as usize]);
        match (rule, mask) {
            (MaskTargets::Binary, mask) => values.extend(mask.crop_and_resize(area, cells)),
            (MaskTargets::Average, InstanceMask::Bitmap(bitmap)) => {
                values.extend(bitmap.crop_and_resize_soft(area, cells));
            }
            (MaskTargets::Average, mask) => {
                let bitmap = match drawn.take() {
                    Some(bitmap) => bitmap,
                    None => mask.to_bitmap((size.0 as usize, size.1 as usize))?,
                };
                values.extend(bitmap.crop_and_resize_soft(area, cells));
                *drawn = Some(bitmap);
            }
        }
    }
    Ok(Tensor::from_slice(&values).view([-1, side, side]))
}
