//! Everything that defines a pretraining run.
//!
//! Settings are laid over one another: the paper's defaults, then a preset,
//! then a file, then the command line. The result is validated once and saved
//! with the run.

mod types;

use std::ops::Bound::Excluded;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use backbone::models::{self, Family, Model};
use data::{IMAGENET_MEAN, IMAGENET_STD};
use engine::optim::OptimizerKind;
use engine::probe::ProbeFigure;
use engine::settings;
use engine::settings::{
    CropSettings, ExecutionSettings, LoadingSettings, OptimSettings, RunSettings, Settings as _,
    Span, TrainSettings, all_positive, at_least, not_negative, within,
};

pub use types::{ExecutionChoice, InputSize, Preset};

/// Images of a batch that the base learning rate is for.
pub const BASE_BATCH: f64 = 256.0;

settings! {
    /// A run's settings; each is a flag of `pretrain train` and a key of its configuration file.
    /// Defaults are those of the paper and official code.
    pub struct TrainConfig {
        ..run: RunSettings = RunSettings::default();
        ..optim: OptimSettings = OptimSettings {
            batch_size: 4096,
            epochs: 1600,
            optimizer: OptimizerKind::Lamb,
            base_lr: 2e-4,
            weight_decay: 0.04,
            clip_grad: 5.0,
            ..OptimSettings::default()
        };
        ..crops: CropSettings = CropSettings {
            crop_scale: Span::new(0.67, 1.0),
            ..CropSettings::default()
        };
        ..loading: LoadingSettings =
            LoadingSettings { max_corrupt: 0.1, ..LoadingSettings::default() };
        ..compute: ExecutionSettings = ExecutionSettings::default();

        /// Images: a folder at any depth, a text list of files, tar shards ({000..009}); also in
        /// object storage: s3://bucket/photos/, 'gs://bucket/set/shards-{0000..1023}.tar', az://,
        /// https://
        #[arg(value_name = "PATH", alias = "data_path", alias = "data-path")]
        data: PathBuf;
        /// Model to pretrain, see `pretrain models`, or a .pt2 file that torch.export has written;
        /// if not given, that of --init-weights where it is one of these
        #[arg(help_heading = "Model")]
        model: String = "resnet50".into();
        /// Modules whose outputs are the stages of a .pt2 file, finest first; found if not given
        #[arg(value_name = "A,B,C,D", help_heading = "Model")]
        stages: Option<String>;
        /// Channels of the images
        #[arg(value_name = "N", help_heading = "Model")]
        in_chans: i64 = 3, at_least(1);
        /// Size of crops in pixels: 224, or 192x256 for height x width
        #[arg(value_name = "PIXELS", alias = "input_size", help_heading = "Model")]
        input_size: InputSize = InputSize::square(224);
        /// Share of patches that is masked
        #[arg(value_name = "RATIO", alias = "mask", help_heading = "Model")]
        mask_ratio: f64 = 0.6, within((Excluded(0.0), Excluded(1.0)), "(0, 1)");
        /// Width of the decoder at the coarsest level
        #[arg(value_name = "N", help_heading = "Model")]
        decoder_width: i64 = 768;
        /// Drop-path rate of the last block; the model's official one, a .pt2 file's own rates, if
        /// not given
        #[arg(value_name = "RATE", alias = "dp", help_heading = "Model")]
        drop_path: Option<f64>;
        /// Weight file to start from, in any format, also hf:owner/name[@revision][/file] and
        /// s3://bucket/key; the run still begins at step 0
        #[arg(value_name = "FILE", alias = "init_weight", alias = "init-weight", help_heading = "Model")]
        init_weights: Option<PathBuf>;

        /// What the encoder computes on; auto times packed and masked at the start of a run on a
        /// GPU and keeps the faster, on a processor it is packed
        #[arg(help_heading = "Execution")]
        execution: ExecutionChoice = ExecutionChoice::Auto;

        /// Epochs of learning-rate warm-up
        #[arg(value_name = "N", alias = "wp_ep", alias = "wp-ep", help_heading = "Optimisation")]
        warmup_epochs: u64 = 40;
        /// Weight decay at the last step, reached along half a cosine
        #[arg(value_name = "WD", alias = "wde", help_heading = "Optimisation")]
        weight_decay_end: f64 = 0.2, not_negative;

        /// Mean of every channel, for pixels in 0–1; ImageNet's if not given
        #[arg(value_name = "M,M,M", value_delimiter = ',', help_heading = "Data")]
        mean: Option<Vec<f32>>;
        /// Standard deviation of every channel; ImageNet's if not given
        #[arg(value_name = "S,S,S", value_delimiter = ',', help_heading = "Data")]
        std: Option<Vec<f32>>, all_positive;
        /// Assign tar shards to processes: each reads its own and none of the others'
        #[arg(alias = "own-shards", help_heading = "Data")]
        shard_by_rank: bool = false;

        /// Epochs between reconstruction pictures, 0 for none but the last
        #[arg(value_name = "N", help_heading = "Output")]
        picture_epochs: u64 = 20;
        /// Labelled data set (`train` and `val`, each with one folder a class) on which the encoder
        /// is scored now and then
        #[arg(value_name = "DIR", help_heading = "Output")]
        probe: Option<PathBuf>;
        /// How it is scored; the nearest neighbours' figure is logged beside it
        #[arg(value_name = "FIGURE", help_heading = "Output")]
        probe_figure: ProbeFigure = ProbeFigure::Linear;
        /// Epochs between such evaluations, 0 for none but the last
        #[arg(value_name = "N", help_heading = "Output")]
        probe_epochs: u64 = 20;
    }
}

impl TrainSettings for TrainConfig {
    fn run(&self) -> &RunSettings {
        &self.run
    }

    fn execution(&self) -> &ExecutionSettings {
        &self.compute
    }

    fn starting_weights(&self) -> Option<&Path> {
        self.init_weights.as_deref()
    }

    fn resolve(mut self) -> Result<Self> {
        if let Some(stages) = self.stages.take() {
            self.model = models::with_stages(&self.model, &stages)?;
        }
        // A file is read when the run is prepared: one that goes on may not need it.
        let model = models::registered(&self.model)?;
        self.run.resolve_name();
        self.drop_path.get_or_insert(model.map_or(0.0, |model| model.pretrain_drop_path));
        let convnext = model.is_some_and(|model| model.family() == Family::ConvNeXt);
        if self.optim.optimizer != OptimizerKind::Lion {
            self.optim.beta2.get_or_insert(if convnext { 0.999 } else { 0.95 });
        }
        self = self.resolve_images()?;
        self.validate()?;
        model.map_or(Ok(()), |model| self.check_model(model))?;
        Ok(self)
    }
}

impl TrainConfig {
    /// Fills the channels' statistics and refuses those that do not fit: all that reading images
    /// takes.
    ///
    /// # Errors
    /// As [`TrainConfig::resolve`].
    pub fn resolve_images(mut self) -> Result<Self> {
        let (mean, std) = self.default_statistics();
        self.mean = self.mean.or(mean);
        self.std = self.std.or(std);
        self.check_each()?;
        self.check_image_statistics()?;
        Ok(self)
    }

    /// Statistics for the number of channels, where there are usual ones.
    fn default_statistics(&self) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
        match self.in_chans {
            // The grey value's, from ImageNet's channel means.
            1 => (Some(vec![0.449]), Some(vec![0.226])),
            3 => (Some(IMAGENET_MEAN.into()), Some(IMAGENET_STD.into())),
            _ => (None, None),
        }
    }

    fn validate(&self) -> Result<()> {
        ensure!(!self.data.as_os_str().is_empty(), "no images: name a folder with --data");
        self.run.check()?;
        self.optim.check()?;
        ensure!(
            self.warmup_epochs < self.optim.epochs,
            "warmup-epochs is {}, but it must be below epochs {}",
            self.warmup_epochs,
            self.optim.epochs
        );
        Ok(())
    }

    /// Refuses a model that cannot be pretrained, or not with these settings.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_model(&self, model: &Model) -> Result<()> {
        check_pretrainable(model)?;
        self.check_statistics(self.optim.batch_size / self.optim.accum_steps, model)
    }

    fn check_image_statistics(&self) -> Result<()> {
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            let Some(values) = values else {
                bail!(
                    "{} channels have no usual statistics: give --mean and --std, one value a \
                     channel, for pixels in 0–1",
                    self.in_chans
                );
            };
            ensure!(
                values.len() as i64 == self.in_chans,
                "{name} has {} values, but the images have {} channels",
                values.len(),
                self.in_chans
            );
        }
        Ok(())
    }

    /// Refuses `part` images at a time if they leave batch norms one value a channel: a visible
    /// patch is one position of the coarsest map.
    ///
    /// # Errors
    /// They do, or the mask ratio leaves no patch visible or none masked.
    pub fn check_statistics(&self, part: usize, model: &Model) -> Result<()> {
        let keep = self.keep_count(self.patch_grid(model.total_stride())?)?;
        ensure!(
            part * keep > 1,
            "a part of a batch is {part} image with {keep} visible patch, but batch norm needs \
             statistics of at least two; raise batch-size or input-size"
        );
        Ok(())
    }

    /// Patches (rows, columns) of a crop.
    fn patch_grid(&self, stride: i64) -> Result<(i64, i64)> {
        let InputSize { height, width } = self.input_size;
        ensure!(
            height > 0 && height % stride == 0 && width > 0 && width % stride == 0,
            "input-size is {}, but its sides must be positive multiples of {stride}, the \
             model's total stride",
            self.input_size
        );
        Ok((height / stride, width / stride))
    }

    /// Visible patches of an image cut into `(rows, cols)` patches.
    ///
    /// # Errors
    /// The ratio would leave none visible, or none masked.
    pub fn keep_count(&self, (rows, cols): (i64, i64)) -> Result<usize> {
        let total = (rows * cols) as usize;
        let keep = crate::mask::keep_count(total, self.mask_ratio);
        ensure!(
            keep > 0 && keep < total,
            "mask-ratio is {}, but of {rows}×{cols} patches it would leave {keep} visible; at \
             least one must be visible and one masked",
            self.mask_ratio
        );
        Ok(keep)
    }

    /// Peak learning rate: the base rate scaled by the batch.
    pub fn peak_lr(&self) -> f64 {
        self.optim.peak_lr(BASE_BATCH)
    }
}

/// Refuses a network that runs on the whole grid alone.
///
/// # Errors
/// It does; the sentence says why.
pub fn check_pretrainable(model: &Model) -> Result<()> {
    let refusal = model.refusal();
    ensure!(
        refusal.is_none(),
        "{} cannot be pretrained: {}",
        model.name,
        refusal.unwrap_or_default()
    );
    Ok(())
}
