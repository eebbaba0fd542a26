//! Region proposals: which anchors hold an object, and how they are moved onto
//! it.
//!
//! "Faster R-CNN" (Ren et al. 2015). Reference: detectron2
//! `modeling/proposal_generator/rpn.py`, torchvision `models/detection/rpn.py`.

mod head;
mod sampled;
mod select;

use backbone::Mode;
use data::rng::Rng;
use engine::distributed::ProcessGroup;
use tch::nn::Path;
use tch::{Kind, Reduction, Tensor};

pub use select::Proposals;

use self::head::RpnHead;
use super::config::{BoxPrecision, LossNormalizer, ModelConfig, RpnConfig};
use super::losses::{mean_count, smooth_l1_sum};
use crate::Result;
use crate::ops::{AnchorGenerator, AnchorStyle, BoxCoder, Matcher, subsample};
use crate::structures::{Boxes, Targets};

/// The proposal generator.
#[derive(Debug)]
pub struct Rpn {
    head: RpnHead,
    anchors: AnchorGenerator,
    coder: BoxCoder,
    matcher: Matcher,
    config: RpnConfig,
    precision: BoxPrecision,
}

/// What the head predicts for the anchors of one level.
#[derive(Debug)]
struct LevelOutput {
    /// `[A, 4]`.
    anchors: Tensor,
    /// `[N, A]`.
    logits: Tensor,
    /// `[N, A, 4]`.
    deltas: Tensor,
}

/// What the head predicts for a batch, level by level.
#[derive(Debug)]
pub struct RpnOutput(Vec<LevelOutput>);

impl Rpn {
    /// `rpn_head` under `path`, for maps of these strides.
    ///
    /// # Errors
    /// Sizes of anchors for another number of levels, or thresholds that don't
    /// rise.
    pub fn new(path: &Path, config: &ModelConfig, strides: &[i64]) -> Result<Self> {
        let anchors = &config.anchors;
        if anchors.sizes.len() != strides.len() {
            let rule = format!(
                "the pyramid has {} levels: one list of sizes for each stage of the backbone and \
                 one for the pooled level",
                strides.len()
            );
            let value = format!("{:?}", anchors.sizes);
            return Err(crate::Error::invalid("anchors.sizes", value, rule));
        }
        Ok(Self {
            head: RpnHead::new(&(path / "rpn_head"), config.fpn_channels, anchors.per_position()),
            anchors: AnchorGenerator {
                sizes: anchors.sizes.clone(),
                aspect_ratios: anchors.aspect_ratios.clone(),
                strides: strides.to_vec(),
                offset: 0.0,
                style: anchors.rule,
            },
            coder: BoxCoder::new([1.0; 4]),
            matcher: Matcher::new(&config.rpn.iou, &[0, -1, 1], true)?,
            config: config.rpn.clone(),
            precision: config.boxes,
        })
    }

    /// Element type and device of the parameters.
    pub(crate) fn options(&self) -> (Kind, tch::Device) {
        self.head.options()
    }

    /// What the head predicts for `maps`, finest first, of images padded to
    /// `padded` (height, width).
    pub fn forward(&self, maps: &[Tensor], padded: (i64, i64), mode: &Mode) -> RpnOutput {
        let output = |(level, map): (usize, &Tensor)| {
            let (logits, deltas) = self.head.forward(map, mode);
            let size = map.size();
            let (height, width) = (size[2], size[3]);
            let (kind, device) = (self.precision.kind(logits.kind()), logits.device());
            let anchors = match self.anchors.style {
                AnchorStyle::Detectron2 => self.anchors.grid(level, (height, width), kind, device),
                AnchorStyle::Torchvision => {
                    let strides = (padded.0 / height, padded.1 / width);
                    self.anchors.grid_with_strides(level, (height, width), strides, kind, device)
                }
            };
            LevelOutput { anchors, logits, deltas }
        };
        RpnOutput(maps.iter().enumerate().map(output).collect())
    }

    /// The best proposals of every image, best first; `training` decides how
    /// many.
    pub fn proposals(
        &self,
        output: &RpnOutput,
        sizes: &[(i64, i64)],
        training: bool,
    ) -> Vec<Proposals> {
        let (before, after) = if training {
            (self.config.pre_nms_train, self.config.post_nms_train)
        } else {
            (self.config.pre_nms_test, self.config.post_nms_test)
        };
        tch::no_grad(|| {
            let candidates = self.candidates(output, before);
            let images = (0..).zip(sizes);
            images.map(|(image, size)| self.select(&candidates, image, *size, after)).collect()
        })
    }

    /// (`loss_rpn_cls`, `loss_rpn_loc`): cross entropy of the sampled anchors,
    /// and the distance of those that stand for an object from it. `maps` are
    /// those that `output` was predicted for. Counts are those of all processes.
    ///
    /// # Errors
    /// Processes that cannot be reached.
    pub fn losses(
        &self,
        maps: &[Tensor],
        output: &RpnOutput,
        targets: &[Targets],
        mode: &Mode,
        (rngs, world): (&mut [Rng], &ProcessGroup),
    ) -> crate::Result<(Tensor, Tensor)> {
        let anchors: Vec<&Tensor> = output.0.iter().map(|level| &level.anchors).collect();
        let anchors = Tensor::cat(&anchors, 0);
        let (mut positives, mut negatives, mut goals) = (Vec::new(), Vec::new(), Vec::new());
        for (image, (targets, rng)) in (0..).zip(targets.iter().zip(rngs)) {
            let (positive, negative, goal) = tch::no_grad(|| self.sample(&anchors, targets, rng));
            let of_image = |indices: Tensor| {
                let indices = Vec::<i64>::try_from(&indices).expect("a vector of indices");
                indices.into_iter().map(move |anchor| (image, anchor))
            };
            positives.extend(of_image(positive));
            negatives.extend(of_image(negative));
            goals.push(goal);
        }
        let objects = positives.len() as i64;
        let sampled = [positives, negatives].concat();
        let (logits, moves) = self.head.at(maps, &sampled, mode);
        let count = sampled.len() as i64;
        let labels = Tensor::arange(count, (Kind::Int64, logits.device())).lt(objects);
        let cross_entropy = logits.binary_cross_entropy_with_logits::<Tensor>(
            &labels.to_kind(logits.kind()),
            None,
            None,
            Reduction::Sum,
        );
        let moves = moves.narrow(0, 0, objects);
        let goals = Tensor::cat(&goals, 0).to_kind(moves.kind());
        let distance = smooth_l1_sum(&moves, &goals, self.config.smooth_l1_beta);
        let normalizer = match self.config.normalizer {
            LossNormalizer::Budget => {
                (self.config.batch_size_per_image * targets.len() as i64) as f64
            }
            LossNormalizer::Sampled => mean_count(world, count)?,
        };
        Ok((cross_entropy / normalizer, distance / normalizer))
    }

    /// Which anchors of an image are learned from: indices of those that stand
    /// for an object, of background, and the moves `[P, 4]` of the former onto
    /// their objects.
    fn sample(
        &self,
        anchors: &Tensor,
        targets: &Targets,
        rng: &mut Rng,
    ) -> (Tensor, Tensor, Tensor) {
        let objects = targets.boxes.tensor().to_kind(anchors.kind());
        let matches = self
            .matcher
            .match_(&Boxes(objects.shallow_clone()).iou(&Boxes(anchors.shallow_clone())));
        let RpnConfig { batch_size_per_image: batch, positive_fraction, .. } = self.config;
        let (positive, negative) = subsample(&matches.label, batch, positive_fraction, 0, rng);
        let matched = objects.index_select(0, &matches.object.index_select(0, &positive));
        let goals = self.coder.encode(&anchors.index_select(0, &positive), &matched);
        (positive, negative, goals)
    }
}
