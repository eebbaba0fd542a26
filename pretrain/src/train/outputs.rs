//! What a run leaves behind besides numbers: pictures, exported weights, and
//! a word about what went wrong.

use std::path::PathBuf;

use anyhow::{Context, Result};
use backbone::weights::{self, Naming, StateDict};
use data::rng::Rng;
use data::write_file;
use data::{Evaluate, Interpolation, Loader, Transform};
use engine::run_dir::{RunDir, shown};
use engine::training::RunLog;
use tch::Tensor;

use super::curve::loss_curve;
use super::setup::normalize;
use super::state::TrainState;
use super::step::Trainer;
use crate::cli::{ExportFormat, timm_config};
use crate::config::TrainConfig;
use crate::picture::png;
use crate::reconstruct::{Reconstruction, reconstruct};
use crate::spark::ENCODER_PREFIX;

/// Images that pictures show.
const PICTURED: usize = 6;

/// Writes pictures and weights.
pub struct Outputs {
    folder: PathBuf,
    /// `[n, C, H, W]`, normalised.
    samples: Tensor,
    config: TrainConfig,
}

impl Outputs {
    /// Takes images spread evenly over the data set for pictures; unreadable
    /// ones are left out.
    pub fn new(run: &RunDir, loader: &Loader, config: &TrainConfig) -> Result<Self> {
        let dataset = loader.dataset();
        let size = (config.input_size.height as usize, config.input_size.width as usize);
        let side = size.0.max(size.1);
        let transform = Evaluate::new(side, size, Interpolation::Bicubic, normalize(config)?)?;
        let count = PICTURED.min(dataset.len());
        let mut samples = Vec::new();
        for number in 0..count {
            let Ok(image) = dataset.image(number * dataset.len() / count) else { continue };
            let mut pixels = vec![0f32; config.in_chans as usize * size.0 * size.1];
            transform.apply(&image, &mut Rng::new(0, &[]), &mut pixels)?;
            let shape = [config.in_chans, size.0 as i64, size.1 as i64];
            samples.push(Tensor::from_slice(&pixels).view(shape));
        }
        let samples = match samples.is_empty() {
            true => Tensor::zeros(
                [0, config.in_chans, size.0 as i64, size.1 as i64],
                tch::kind::FLOAT_CPU,
            ),
            false => Tensor::stack(&samples, 0),
        };
        Ok(Self { folder: run.path().to_owned(), samples, config: config.clone() })
    }

    /// Draws how the model reconstructs the sample images now.
    pub fn draw(&self, trainer: &Trainer, epoch: u64, step: u64, log: &mut RunLog) -> Result<()> {
        let Some(picture) = self.sheet(trainer, &format!("epoch {epoch}"))? else { return Ok(()) };
        let folder = self.folder.join("pictures");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        write_file(&folder.join(format!("epoch-{epoch:04}.png")), &picture)?;
        Ok(log.picture("reconstruction", step, &picture)?)
    }

    fn sheet(&self, trainer: &Trainer, when: &str) -> Result<Option<Vec<u8>>> {
        if self.samples.size()[0] == 0 {
            return Ok(None);
        }
        let settings = Reconstruction {
            mask_ratio: self.config.mask_ratio,
            seed: self.config.execution.seed,
            compute: self.config.execution.precision.compute(),
            normalize: normalize(&self.config)?,
            title: format!("{} {when}", self.config.model),
        };
        let drawn = reconstruct(
            &trainer.spark,
            &self
                .samples
                .to_device(trainer.device)
                .to_kind(self.config.execution.precision.parameters()),
            &settings,
        )?;
        Ok(Some(png(&drawn.sheet)?))
    }

    /// Exports the encoder, draws the last reconstructions and the loss curve,
    /// and says where everything lies.
    pub fn finish(&self, trainer: &Trainer, state: &TrainState) -> Result<()> {
        let encoder = encoder(trainer);
        let export = self.folder.join("export");
        let model = self.config.registered_model()?;
        std::fs::create_dir_all(&export)
            .with_context(|| format!("cannot make {}", export.display()))?;
        let weights_file = export.join(format!("{}_spark.safetensors", model.name));
        let own = weights::export(model.family(), Naming::Official, &encoder)?;
        weights::write_safetensors(&weights_file, &own, &Default::default())?;
        let timm = export.join("timm");
        let config = timm_config(model, &self.config);
        ExportFormat::Timm.write(&timm, model, &encoder, Some(config))?;

        let mut written =
            vec![("run", self.folder.clone()), ("encoder", weights_file), ("timm folder", timm)];
        if let Some(picture) = self.sheet(trainer, &format!("after {} steps", state.step))? {
            let sheet = self.folder.join("reconstruction.png");
            write_file(&sheet, &picture)?;
            written.push(("reconstructions", sheet));
        }
        if let Some(picture) =
            loss_curve(&self.folder.join("metrics.jsonl"), &self.config.run.name)?
        {
            let curve = self.folder.join("loss.png");
            write_file(&curve, &png(&picture)?)?;
            written.push(("loss curve", curve));
        }
        for (what, path) in written {
            println!("{what:<16} {}", shown(&path));
        }
        Ok(())
    }
}

fn encoder(trainer: &Trainer) -> StateDict {
    let prefix = format!("{ENCODER_PREFIX}.");
    let variables = trainer.variables().into_iter();
    let own = variables.filter_map(|(name, tensor)| {
        Some((name.strip_prefix(&prefix)?.to_owned(), tensor.detach().to_device(tch::Device::Cpu)))
    });
    own.collect()
}
