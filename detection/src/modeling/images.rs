//! Images of any sizes as one normalised, padded batch.
//! Reference: detectron2 `structures/image_list.py`.

use engine::distributed::ProcessGroup;
use tch::{Device, Kind, Tensor};

use super::layers::channels_last;
use crate::{Error, Result};

/// A batch of images.
#[derive(Debug)]
pub struct ImageBatch {
    /// `[N, 3, H, W]`, normalised, zero beyond each image, in channels-last
    /// memory.
    pub tensor: Tensor,
    /// Height and width of every image before padding.
    pub sizes: Vec<(i64, i64)>,
}

impl ImageBatch {
    /// Normalises `images`, each `[3, H, W]` of any type, RGB in 0–255, and
    /// pads them at the right and bottom to one size, a multiple of `divisor`, which is the same
    /// on all processes of `world`: what lies beyond an image takes part in statistics and in the
    /// features near its edge.
    ///
    /// # Errors
    /// No images, or one of another shape; processes that cannot be reached.
    pub fn new(
        images: &[Tensor],
        (mean, std): ([f64; 3], [f64; 3]),
        divisor: i64,
        (kind, device): (Kind, Device),
        world: &ProcessGroup,
    ) -> Result<Self> {
        let sizes = images.iter().enumerate().map(|(index, image)| match image.size()[..] {
            [3, height, width] if height > 0 && width > 0 => Ok((height, width)),
            _ => {
                let value = format!("{:?}", image.size());
                Err(Error::invalid(format!("image {index}"), value, "it must be [3, H, W]"))
            }
        });
        let sizes: Vec<(i64, i64)> = sizes.collect::<Result<_>>()?;
        let largest = |side: fn(&(i64, i64)) -> i64| sizes.iter().map(side).max().unwrap_or(0);
        let mut sides = [largest(|size| size.0) as f64, largest(|size| size.1) as f64];
        world.max(&mut sides)?;
        let [height, width] = sides.map(|side| (side as i64 + divisor - 1) / divisor * divisor);
        if sizes.is_empty() {
            return Err(Error::invalid("images", "empty", "a batch holds at least one"));
        }
        let statistics =
            |values: [f64; 3]| Tensor::from_slice(&values).to_device(device).to_kind(kind);
        let mean = statistics(mean).view([3, 1, 1]);
        let std = statistics(std).view([3, 1, 1]);
        let mut batch = Tensor::zeros([images.len() as i64, height, width, 3], (kind, device))
            .permute([0, 3, 1, 2]);
        for (index, (image, (h, w))) in (0..).zip(images.iter().zip(&sizes)) {
            let image = (image.to_device(device).to_kind(kind) - &mean) / &std;
            batch.get(index).narrow(1, 0, *h).narrow(2, 0, *w).copy_(&image);
        }
        batch = channels_last(&batch);
        Ok(Self { tensor: batch, sizes })
    }

    /// Height and width after padding.
    pub fn padded_size(&self) -> (i64, i64) {
        let size = self.tensor.size();
        (size[2], size[3])
    }
}
