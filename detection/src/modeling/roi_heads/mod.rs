//! From proposals to detections: class, box and mask of every region.
//!
//! "Mask R-CNN" (He et al. 2017). Reference: detectron2
//! `modeling/roi_heads/roi_heads.py`, torchvision `models/detection/roi_heads.py`.

mod box_head;
mod infer;
mod mask_head;
mod mask_targets;
mod pool;
mod sample;

use backbone::Mode;
use data::rng::Rng;
use engine::distributed::ProcessGroup;
use tch::nn::Path;
use tch::{Reduction, Tensor};

use self::box_head::{BoxHead, Predictions, Predictor};
use self::mask_head::MaskHead;
use self::mask_targets::mask_targets;
use self::pool::Pooler;
use self::sample::Sample;
use super::config::{ModelConfig, RoiConfig};
use super::losses::{mean_count, smooth_l1_sum};
use super::rpn::Proposals;
use crate::Result;
use crate::ops::{BoxCoder, Matcher};
use crate::structures::{Detections, Targets};

/// The second stage of the detector.
#[derive(Debug)]
pub struct RoiHeads {
    box_head: BoxHead,
    predictor: Predictor,
    mask: Option<MaskBranch>,
    box_pooler: Pooler,
    coder: BoxCoder,
    matcher: Matcher,
    config: ModelConfig,
}

#[derive(Debug)]
struct MaskBranch {
    head: MaskHead,
    pooler: Pooler,
}

impl RoiHeads {
    /// `box_head`, `box_predictor` and `mask_head` under `path`; `strides` are
    /// those of the pyramid's maps but the pooled one.
    ///
    /// # Errors
    /// Thresholds out of range.
    pub fn new(path: &Path, config: &ModelConfig, strides: &[i64]) -> Result<Self> {
        let outputs = config.background.outputs(config.num_classes);
        let width = config.fpn_channels;
        let mask = config.mask_head.as_ref().map(|head| MaskBranch {
            head: MaskHead::new(&(path / "mask_head"), width, outputs, head),
            pooler: Pooler::new(head.pool, &config.roi, strides),
        });
        let predictor = path / "box_predictor";
        Ok(Self {
            box_head: BoxHead::new(&(path / "box_head"), width, &config.box_head),
            predictor: Predictor::new(
                &predictor,
                config.box_head.fc_width,
                (config.num_classes + 1, outputs),
            ),
            mask,
            box_pooler: Pooler::new(config.box_head.pool, &config.roi, strides),
            coder: BoxCoder::new(config.box_head.weights),
            matcher: Matcher::new(&[config.roi.foreground_iou], &[0, 1], false)?,
            config: config.clone(),
        })
    }

    /// Losses of regions sampled from `proposals`: `loss_cls`, `loss_box_reg`
    /// and `loss_mask`. `maps` are all of the pyramid's, finest first, `sizes`
    /// the images' before padding. Counts are those of all processes.
    ///
    /// # Errors
    /// An image too large to draw polygons in; processes that cannot be reached.
    pub fn losses(
        &self,
        maps: &[Tensor],
        proposals: &[Proposals],
        targets: &[Targets],
        sizes: &[(i64, i64)],
        mode: &Mode,
        (rngs, world): (&mut [Rng], &ProcessGroup),
    ) -> Result<Vec<(&'static str, Tensor)>> {
        let samples: Vec<Sample> = proposals
            .iter()
            .zip(targets)
            .zip(rngs)
            .map(|((proposals, targets), rng)| {
                tch::no_grad(|| self.sample(proposals.boxes.tensor(), targets, rng))
            })
            .collect();
        let boxes: Vec<&Tensor> = samples.iter().map(|sample| &sample.boxes).collect();
        let predictions = self.predict(maps, &boxes, mode);
        let (cross_entropy, distance) = self.box_losses(&predictions, &samples, world)?;
        let mut losses = vec![("loss_cls", cross_entropy), ("loss_box_reg", distance)];
        if let Some(mask) = &self.mask {
            let objects = Objects { samples: &samples, targets, sizes };
            losses.push(("loss_mask", self.mask_loss(mask, maps, &objects, mode, world)?));
        }
        Ok(losses)
    }

    /// Detections of every image, `sizes` (height, width) before padding.
    pub fn detect(
        &self,
        maps: &[Tensor],
        proposals: &[Proposals],
        sizes: &[(i64, i64)],
        mode: &Mode,
    ) -> Vec<Detections> {
        let boxes: Vec<&Tensor> = proposals.iter().map(|p| p.boxes.tensor()).collect();
        let predictions = self.predict(maps, &boxes, mode);
        let mut detections = self.select(&predictions, &boxes, sizes);
        if let Some(mask) = &self.mask {
            self.add_masks(mask, maps, &mut detections, mode);
        }
        detections
    }

    /// Class scores and box moves of every region, image after image.
    fn predict(&self, maps: &[Tensor], boxes: &[&Tensor], mode: &Mode) -> Predictions {
        let regions = self.box_pooler.pool(maps, boxes);
        self.predictor.forward(&self.box_head.forward(&regions, mode), mode)
    }

    /// Cross entropy of all sampled regions, and the distance of those that are
    /// objects from them, both over the number of sampled regions.
    fn box_losses(
        &self,
        predictions: &Predictions,
        samples: &[Sample],
        world: &ProcessGroup,
    ) -> Result<(Tensor, Tensor)> {
        let all = |field: fn(&Sample) -> &Tensor| {
            Tensor::cat(&samples.iter().map(field).collect::<Vec<_>>(), 0)
        };
        let columns = all(|sample| &sample.columns);
        let count = mean_count(world, columns.size()[0])?;
        let cross_entropy = predictions.scores.cross_entropy_loss::<Tensor>(
            &columns,
            None,
            Reduction::Sum,
            -100,
            0.0,
        );
        let objects = columns.ne(self.background()).nonzero().squeeze_dim(1);
        let moves = predictions.moves.index_select(0, &objects);
        let moves = of_columns(&moves, &columns.index_select(0, &objects));
        let goals = all(|sample| &sample.goals).to_kind(moves.kind());
        let distance = smooth_l1_sum(&moves, &goals, self.config.box_head.smooth_l1_beta);
        Ok((cross_entropy / count, distance / count))
    }

    /// Mean cross entropy of the cells of the regions that are objects.
    fn mask_loss(
        &self,
        branch: &MaskBranch,
        maps: &[Tensor],
        objects: &Objects,
        mode: &Mode,
        world: &ProcessGroup,
    ) -> Result<Tensor> {
        let Objects { samples, targets, sizes } = objects;
        let boxes: Vec<Tensor> = samples.iter().map(Sample::object_boxes).collect();
        let columns: Vec<Tensor> = samples.iter().map(Sample::object_columns).collect();
        let regions = branch.pooler.pool(maps, &boxes.iter().collect::<Vec<_>>());
        let logits = branch.head.forward(&regions, &Tensor::cat(&columns, 0), mode);
        let head = branch.head.config();
        let images = samples.iter().zip(&boxes).zip(targets.iter().zip(*sizes));
        let goals = images.map(|((sample, boxes), (targets, size))| {
            let side = 2 * head.pool.size;
            mask_targets(&targets.masks, &sample.objects, boxes, *size, side, head.targets)
        });
        let goals = Tensor::cat(&goals.collect::<Result<Vec<_>>>()?, 0);
        let goals = goals.to_device(logits.device()).to_kind(logits.kind());
        let count = mean_count(world, logits.size()[0])?;
        if logits.size()[0] == 0 {
            // Zero, with gradients that are zero too.
            return Ok(logits.sum(logits.kind()));
        }
        let cells = (goals.size()[1] * goals.size()[2]) as f64;
        let cross_entropy = logits.squeeze_dim(1).binary_cross_entropy_with_logits::<Tensor>(
            &goals,
            None,
            None,
            Reduction::Sum,
        );
        Ok(cross_entropy / (count * cells))
    }

    fn background(&self) -> i64 {
        self.config.background.index(self.config.num_classes)
    }

    fn roi(&self) -> &RoiConfig {
        &self.config.roi
    }
}

/// What a step learns masks from, image by image.
struct Objects<'a> {
    samples: &'a [Sample],
    targets: &'a [Targets],
    sizes: &'a [(i64, i64)],
}

/// The move of each region (`[R, outputs, 4]`) for its own `columns` (`[R]`):
/// `[R, 4]`.
fn of_columns(moves: &Tensor, columns: &Tensor) -> Tensor {
    let index = columns.view([-1, 1, 1]).expand([-1, 1, 4], false);
    moves.gather(1, &index, false).squeeze_dim(1)
}
