//! Drawing which patches stay visible (paper, section 3.1).

use std::rc::Rc;

use backbone::{PatchMask, Result, Size};
use data::rng::Rng;
use tch::Device;

/// Visible patches out of `total`: `total · (1 − ratio)`, rounded half to even
/// as Python's `round`.
pub fn keep_count(total: usize, mask_ratio: f64) -> usize {
    (total as f64 * (1.0 - mask_ratio)).round_ties_even() as usize
}

/// A mask that leaves `keep` patches of every image visible, uniformly at
/// random: image i draws from `generators[i]`.
///
/// # Errors
/// `keep` is 0.
pub fn draw(
    generators: impl IntoIterator<Item = Rng>,
    (rows, cols): Size,
    keep: usize,
    device: Device,
) -> Result<Rc<PatchMask>> {
    let per_image = rows * cols;
    let mut visible = Vec::new();
    let mut batch = 0;
    for mut generator in generators {
        let mut chosen = generator.permutation(per_image as usize);
        chosen.truncate(keep);
        chosen.sort_unstable();
        visible.extend(chosen.into_iter().map(|patch| batch * per_image + patch as i64));
        batch += 1;
    }
    PatchMask::from_visible(batch, (rows, cols), &visible, device)
}
