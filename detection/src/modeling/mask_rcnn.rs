//! Mask R-CNN put together.

use backbone::models::{self, BuildOptions, Model};
use backbone::{Backbone, Mode};
use data::rng::Rng;
use engine::distributed::ProcessGroup;
use tch::nn::{Path, VarStore};
use tch::{Kind, Tensor};
use words::counted;

use super::config::{BackboneNorm, HeadNorm, ModelConfig};
use super::weights::{BOTTOM_UP, is_output_norm};
use super::{Fpn, ImageBatch, Losses, Proposals, RoiHeads, Rpn};
use crate::structures::{Detections, InstanceMask, Targets};
use crate::{Error, Result};

/// Mask R-CNN on a feature pyramid over any backbone.
#[derive(Debug)]
pub struct MaskRcnn {
    fpn: Fpn,
    rpn: Rpn,
    roi_heads: RoiHeads,
    config: ModelConfig,
}

/// Everything that a pass in evaluation computes.
#[derive(Debug)]
pub struct InferenceTrace {
    /// The pyramid's maps, finest first, each `[N, C, h, w]`.
    pub maps: Vec<Tensor>,
    /// Of every image.
    pub proposals: Vec<Proposals>,
    /// Of every image.
    pub detections: Vec<Detections>,
}

impl MaskRcnn {
    /// The detector around `bottom_up`, whose variables lie under
    /// `path / "backbone" / "bottom_up"`. Other variables are made with
    /// detectron2's names and initial values.
    ///
    /// # Errors
    /// Settings out of range, or a backbone that a pyramid can't be built on.
    pub fn new(path: &Path, config: &ModelConfig, bottom_up: Box<dyn Backbone>) -> Result<Self> {
        config.check()?;
        let channels = bottom_up.in_chans();
        if channels != 3 {
            let rule = "the detector is fed red, green and blue";
            return Err(Error::invalid("the backbone's channels", channels, rule));
        }
        let fpn = Fpn::new(&(path / "backbone"), config, bottom_up)?;
        let rpn = Rpn::new(&(path / "proposal_generator"), config, fpn.strides())?;
        // The pooled map serves proposals alone.
        let strides = &fpn.strides()[..fpn.strides().len() - 1];
        let roi_heads = RoiHeads::new(&(path / "roi_heads"), config, strides)?;
        Ok(Self { fpn, rpn, roi_heads, config: config.clone() })
    }

    /// The detector of `config` with randomly initialised parameters in
    /// `store`, but for those in a backbone's `.pt2` file; those of frozen batch norms need no
    /// gradient.
    ///
    /// # Errors
    /// As [`MaskRcnn::new`], and a backbone that there isn't.
    pub fn build(store: &VarStore, config: &ModelConfig) -> Result<Self> {
        Self::of_model(store, config, &models::find(&config.backbone)?)
    }

    /// The same on a backbone that is known already.
    ///
    /// # Errors
    /// As [`MaskRcnn::new`].
    pub fn of_model(store: &VarStore, config: &ModelConfig, model: &Model) -> Result<Self> {
        let root = store.root();
        let path = &root / "backbone" / "bottom_up";
        let options = BuildOptions { drop_path_rate: config.drop_path, ..BuildOptions::default() };
        let bottom_up = model.build(&path, &options)?;
        let taken = |name: &String| name.strip_prefix(BOTTOM_UP).is_some_and(is_output_norm);
        if let Some(name) = store.variables().into_keys().find(taken).filter(|_| config.output_norm)
        {
            let rule = "norms on the backbone's outputs are called so: turn output-norm off";
            return Err(Error::invalid("a tensor of the backbone", name, rule));
        }
        // Those of a file have their values.
        let layer_scale = config.layer_scale.filter(|_| model.graph().is_none());
        let model = Self::new(&root, config, bottom_up)?;
        let variables = store.variables();
        tch::no_grad(|| {
            for (name, variable) in &variables {
                let of_backbone = name.starts_with("backbone.bottom_up.");
                if let (true, true, Some(scale)) =
                    (of_backbone, name.ends_with(".gamma"), layer_scale)
                {
                    let _ = variable.shallow_clone().fill_(scale);
                }
                let norm = name.rsplit_once('.').map_or("", |(norm, _)| norm);
                let frozen = config.backbone_norm == BackboneNorm::Frozen
                    && variables.contains_key(&format!("{norm}.running_mean"));
                if of_backbone && frozen {
                    let _ = variable.set_requires_grad(false);
                }
            }
        });
        Ok(model)
    }

    /// What it was built by.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The network under the pyramid.
    pub fn bottom_up(&self) -> &dyn Backbone {
        self.fpn.bottom_up()
    }

    /// Whether a training pass with the first `frozen` parts of the backbone as in evaluation
    /// has batch norms learn from the coarsest maps.
    pub fn trains_batch_norms(&self, frozen: usize) -> bool {
        let bottom_up = self.bottom_up();
        let in_backbone = bottom_up.has_batch_norms()
            && self.config.backbone_norm == BackboneNorm::Batch
            && frozen <= bottom_up.stages().len();
        in_backbone || self.config.fpn_norm == HeadNorm::Batch
    }

    /// The losses on `images`, each `[3, H, W]` of any type and size, RGB in
    /// 0–255. Which anchors and regions are learned from is drawn from `rngs`,
    /// one an image. The mean over the processes of `world`, which all call with equally many
    /// images, is the loss of all their images together.
    ///
    /// # Errors
    /// Images of another shape, or targets that don't fit them; processes that cannot be reached.
    pub fn losses(
        &self,
        images: &[Tensor],
        targets: &[Targets],
        mode: &Mode,
        rngs: &mut [Rng],
        world: &ProcessGroup,
    ) -> Result<Losses> {
        let batch = self.batch(images, world)?;
        self.check_targets(targets, &batch.sizes)?;
        if rngs.len() != images.len() {
            let rule = format!("there are {} images, and each needs one", images.len());
            return Err(Error::invalid("random generators", rngs.len(), rule));
        }
        let device = batch.tensor.device();
        let targets: Vec<Targets> =
            targets.iter().map(|targets| targets.to_device(device)).collect();
        let maps = self.fpn.forward(&batch.tensor, mode)?;
        // Proposals are not learned through; the losses look at sampled anchors.
        let unlearned = mode.frozen();
        let output = tch::no_grad(|| self.rpn.forward(&maps, batch.padded_size(), &unlearned));
        let proposals = self.rpn.proposals(&output, &batch.sizes, mode.training);
        let (objectness, location) =
            self.rpn.losses(&maps, &output, &targets, mode, (rngs, world))?;
        let mut losses = vec![("loss_rpn_cls", objectness), ("loss_rpn_loc", location)];
        losses.extend(self.roi_heads.losses(
            &maps,
            &proposals,
            &targets,
            &batch.sizes,
            mode,
            (rngs, world),
        )?);
        Ok(Losses::new(losses))
    }

    /// The objects in `images`, each `[3, H, W]` of any type and size, RGB in
    /// 0–255: boxes in that image's pixels, masks in the cells of their boxes.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn infer(&self, images: &[Tensor], mode: &Mode) -> Result<Vec<Detections>> {
        Ok(self.dump(images, mode)?.detections)
    }

    /// [`MaskRcnn::infer`] with what it computes on the way.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn dump(&self, images: &[Tensor], mode: &Mode) -> Result<InferenceTrace> {
        tch::no_grad(|| {
            let batch = self.batch(images, &ProcessGroup::alone())?;
            let maps = self.fpn.forward(&batch.tensor, mode)?;
            let output = self.rpn.forward(&maps, batch.padded_size(), mode);
            let proposals = self.rpn.proposals(&output, &batch.sizes, false);
            drop(output);
            let detections = self.roi_heads.detect(&maps, &proposals, &batch.sizes, mode);
            Ok(InferenceTrace { maps, proposals, detections })
        })
    }

    /// The maps of the pyramid alone, finest first: to renew the statistics of
    /// batch norms in backbone and pyramid, for example. All processes of `world` call.
    ///
    /// # Errors
    /// Images of another shape; processes that cannot be reached.
    pub fn maps(
        &self,
        images: &[Tensor],
        mode: &Mode,
        world: &ProcessGroup,
    ) -> Result<Vec<Tensor>> {
        self.fpn.forward(&self.batch(images, world)?.tensor, mode)
    }

    /// The images in the parameters' type, normalised and padded.
    fn batch(&self, images: &[Tensor], world: &ProcessGroup) -> Result<ImageBatch> {
        let statistics = (self.config.pixel_mean, self.config.pixel_std);
        ImageBatch::new(images, statistics, self.fpn.divisor(), self.rpn.options(), world)
    }

    fn check_targets(&self, targets: &[Targets], sizes: &[(i64, i64)]) -> Result<()> {
        if targets.len() != sizes.len() {
            let rule = format!("there are {} images, and each needs its own", sizes.len());
            return Err(Error::invalid("targets", targets.len(), rule));
        }
        for (index, (targets, size)) in targets.iter().zip(sizes).enumerate() {
            let boxes = targets.boxes.tensor().size();
            let of = |what: &str| format!("{what} of image {index}");
            if boxes.len() != 2 || boxes[1] != 4 {
                return Err(Error::invalid(of("boxes"), format!("{boxes:?}"), "it must be [N, 4]"));
            }
            let classes = Vec::<i64>::try_from(targets.classes.to_kind(Kind::Int64))
                .map_err(|_| Error::invalid(of("classes"), "no vector", "it must be [N]"))?;
            let masks =
                self.config.mask_head.as_ref().map_or(boxes[0], |_| targets.masks.len() as i64);
            if classes.len() as i64 != boxes[0] || masks != boxes[0] {
                let value = format!(
                    "{}, {}, {}",
                    counted(boxes[0], "box"),
                    counted(classes.len(), "class"),
                    counted(masks, "mask")
                );
                return Err(Error::invalid(of("objects"), value, "there must be equally many"));
            }
            let known = 0..self.config.num_classes;
            if let Some(class) = classes.iter().find(|class| !known.contains(class)) {
                let rule = format!("the model has classes 0 to {}", known.end - 1);
                return Err(Error::invalid(of("a class"), class, rule));
            }
            let fed = (size.0 as usize, size.1 as usize);
            let mut sizes = targets.masks.iter().filter_map(InstanceMask::size);
            if let Some(other) = sizes.find(|other| *other != fed) {
                let rule = format!("the image has {}×{} pixels", size.0, size.1);
                return Err(Error::invalid(of("a mask"), format!("{}×{}", other.0, other.1), rule));
            }
        }
        Ok(())
    }
}
