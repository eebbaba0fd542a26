//! What the mask branch learns from.

use tch::{Kind, Tensor};

use crate::Result;
use crate::modeling::config::MaskTargets;
use crate::structures::{InstanceMask, MaskPatch};

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
    let cells = side as usize;
    let mut values = vec![0f32; objects.len() * cells * cells];
    // Object by object, so that the pixels of one at a time are drawn.
    let mut rows: Vec<usize> = (0..objects.len()).collect();
    rows.sort_by_key(|&row| objects[row]);
    for rows in rows.chunk_by(|&a, &b| objects[a] == objects[b]) {
        let mask = &masks[objects[rows[0]] as usize];
        let patch = match (rule, mask) {
            // Drawn anew in every box.
            (MaskTargets::Binary, InstanceMask::Polygons(_)) => None,
            _ => Some(MaskPatch::new(mask, (size.0 as usize, size.1 as usize))?),
        };
        for &row in rows {
            let area = [0, 1, 2, 3].map(|side| boxes[4 * row + side]);
            let target = match (rule, &patch) {
                (MaskTargets::Average, Some(patch)) => patch.soft(area, cells),
                (MaskTargets::Binary, Some(patch)) => patch.binary(area, cells),
                (_, None) => mask.crop_and_resize(area, cells),
            };
            values[row * cells * cells..][..cells * cells].copy_from_slice(&target);
        }
    }
    Ok(Tensor::from_slice(&values).view([-1, side, side]))
}
