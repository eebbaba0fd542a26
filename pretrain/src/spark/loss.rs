//! Mean squared error on normalised pixels of the masked patches (paper,
//! section 3.3).

use backbone::{PatchMask, Size};
use tch::{Kind, Tensor};

/// Added to a patch's variance before its square root.
const VARIANCE_EPS: f64 = 1e-6;
/// Pixels of every patch as rows: `[N, C, H, W]` to `[N·rows·cols, p·q·C]`,
/// ordered as row in the patch, column in the patch, channel.
fn patchify(images: &Tensor, (rows, cols): Size) -> Tensor {
    let size = images.size();
    let (n, c, p, q) = (size[0], size[1], size[2] / rows, size[3] / cols);
    images
        .view([n, c, rows, p, cols, q])
        .permute([0, 2, 4, 3, 5, 1])
        .reshape([n * rows * cols, p * q * c])
}

/// Mean and deviation `[rows, 1]` by which each row is normalised.
fn statistics(rows: &Tensor) -> (Tensor, Tensor) {
    let dims = [1i64].as_slice();
    let (variance, mean) = rows.var_mean_dim(dims, true, true);
    (mean, (variance + VARIANCE_EPS).sqrt())
}

/// The loss: each masked patch of `images` `[N, C, H, W]` is normalised by its
/// own mean and deviation and compared with `prediction`; the mean squared
/// errors are averaged over masked patches. A scalar, in float32 or wider;
/// zero if nothing is masked.
///
/// The official code divides by the number of masked patches plus 1e-8 in
/// float32, where the sum is that number: the plain mean.
pub fn masked_patch_loss(images: &Tensor, prediction: &Tensor, mask: &PatchMask) -> Tensor {
    packed_loss(&mask.pack_masked(images), &mask.pack_masked(prediction))
}

/// The same from the masked patches alone, `[M, C, p, q]` both.
pub(super) fn packed_loss(target: &Tensor, prediction: &Tensor) -> Tensor {
    let wide = if target.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    if target.numel() == 0 {
        return prediction.sum(wide) * 0.0;
    }
    let rows = |patches: &Tensor| patches.permute([0, 2, 3, 1]).flatten(1, 3).to_kind(wide);
    let (target, prediction) = (rows(target), rows(prediction));
    let (mean, deviation) = statistics(&target);
    let error = prediction - (target - mean) / deviation;
    error.square().mean(wide)
}

/// The reconstruction in the space of `images`: predictions scaled back by
/// each patch's own statistics, visible patches copied from `images`.
pub fn denormalise(images: &Tensor, prediction: &Tensor, mask: &PatchMask) -> Tensor {
    let (rows, cols) = mask.patches();
    let size = images.size();
    let patch = (size[2] / rows, size[3] / cols);
    images.where_self(&mask.active(patch), &restored(images, prediction, (rows, cols)))
}

/// Every patch of `prediction` `[N, C, H, W]` scaled back by the statistics of the patch of
/// `images` there; the image is cut into `(rows, columns)` patches.
pub fn restored(images: &Tensor, prediction: &Tensor, (rows, cols): Size) -> Tensor {
    let size = images.size();
    let (n, c, p, q) = (size[0], size[1], size[2] / rows, size[3] / cols);
    let (mean, deviation) = statistics(&patchify(&images.contiguous(), (rows, cols)));
    let pixels = patchify(&prediction.to_kind(images.kind()).contiguous(), (rows, cols));
    (pixels * deviation + mean)
        .view([n, rows, cols, p, q, c])
        .permute([0, 5, 1, 3, 2, 4])
        .reshape([n, c, size[2], size[3]])
}

/// The loss of every patch `[N, rows, columns]`, visible ones included, in the kind of `images`
/// `[N, C, H, W]`: the mean over masked patches is [`masked_patch_loss`].
pub fn patch_errors(images: &Tensor, prediction: &Tensor, (rows, cols): Size) -> Tensor {
    let target = patchify(&images.contiguous(), (rows, cols));
    let (mean, deviation) = statistics(&target);
    let prediction = patchify(&prediction.to_kind(images.kind()).contiguous(), (rows, cols));
    let error = (prediction - (target - mean) / deviation).square();
    error.mean_dim([1i64].as_slice(), false, images.kind()).view([-1, rows, cols])
}
