//! What a run leaves behind besides numbers: pictures, exported weights, and
//! a word about what went wrong.

use std::path::{Path, PathBuf};

use anyhow::Result;
use backbone::models::Model;
use backbone::weights::{self, Naming, StateDict};
use data::rng::Rng;
use data::write_file;
use data::{Evaluate, Interpolation, Loader, Transform};
use engine::outputs::{make_folder, print_written};
use engine::picture::loss_curve;
use engine::training::{RunLog, Trainer};
use tch::Tensor;
use words::counted;

use super::setup::normalize;
use super::task::Pretraining;
use crate::cli::{ExportFormat, timm_config};
use crate::config::TrainConfig;
use crate::mask::Masking;
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
}

impl Outputs {
    /// Takes images spread evenly over the data set for pictures; unreadable
    /// ones are left out.
    pub fn new(loader: &Loader, config: &TrainConfig) -> Result<Self> {
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
        Ok(Self { folder: config.run.folder()?, samples })
    }

    /// Draws how the model reconstructs the sample images now.
    pub fn draw(
        &self,
        task: &Pretraining,
        trainer: &Trainer,
        epoch: u64,
        log: &mut RunLog,
    ) -> Result<()> {
        let caption = format!("epoch {epoch}");
        let Some(picture) = self.sheet(task, trainer, &caption)? else { return Ok(()) };
        let folder = self.folder.join("pictures");
        make_folder(&folder)?;
        write_file(&folder.join(format!("epoch-{epoch:04}.png")), &picture)?;
        Ok(log.image("reconstruction", &picture)?)
    }

    fn sheet(&self, task: &Pretraining, trainer: &Trainer, when: &str) -> Result<Option<Vec<u8>>> {
        if self.samples.size()[0] == 0 {
            return Ok(None);
        }
        let config = &task.config;
        let settings = Reconstruction {
            masking: Masking::Random { ratio: config.mask_ratio, seed: config.compute.seed },
            compute: config.compute.precision.compute(),
            normalize: normalize(config)?,
            title: format!("{} {when}", task.model.name),
        };
        let drawn = reconstruct(
            &task.spark,
            &self.samples.to_device(trainer.device).to_kind(config.compute.precision.parameters()),
            &settings,
        )?;
        Ok(Some(png(&drawn.sheet)?))
    }

    /// Exports the encoder, draws the last reconstructions and the loss curve,
    /// and says where everything lies.
    pub fn finish(&self, task: &Pretraining, trainer: &Trainer, steps: u64) -> Result<()> {
        let config = &task.config;
        let export = self.folder.join("export");
        make_folder(&export)?;
        let mut written = vec![("run", self.folder.clone())];
        written.extend(match task.model.graph() {
            None => write_registered(&export, &task.model, &encoder(trainer), config)?,
            Some(_) => write_of_file(&export, &task.model, &encoder(trainer))?,
        });
        if let Some(picture) =
            self.sheet(task, trainer, &format!("after {}", counted(steps, "step")))?
        {
            let sheet = self.folder.join("reconstruction.png");
            write_file(&sheet, &picture)?;
            written.push(("reconstructions", sheet));
        }
        let metrics = self.folder.join("metrics.jsonl");
        if let Some(picture) = loss_curve(&metrics, &config.run.name, "loss on masked patches")? {
            let curve = self.folder.join("loss.png");
            write_file(&curve, &png(&picture)?)?;
            written.push(("loss curve", curve));
        }
        print_written(&written);
        Ok(())
    }
}

/// What is written, in words, and where.
type Written = Vec<(&'static str, PathBuf)>;

/// Writes the encoder by its official names and for timm.
fn write_registered(
    folder: &Path,
    model: &Model,
    encoder: &StateDict,
    config: &TrainConfig,
) -> Result<Written> {
    let file = folder.join(format!("{}_spark.safetensors", model.name));
    let own = weights::export(model.family(), Naming::Official, encoder)?;
    weights::write_safetensors(&file, &own, &Default::default())?;
    let timm = folder.join("timm");
    ExportFormat::Timm.write(&timm, model, encoder, Some(timm_config(model, config)))?;
    Ok(vec![("encoder", file), ("timm folder", timm)])
}

/// Writes the encoder as the `.pt2` file it came from: state dicts by its own names, and the whole.
fn write_of_file(folder: &Path, model: &Model, encoder: &StateDict) -> Result<Written> {
    let files = [
        ("encoder", "safetensors", ExportFormat::Official),
        ("state dict", "pth", ExportFormat::Official),
        ("network", "pt2", ExportFormat::Pt2),
    ];
    let write = |(what, ending, format): (&'static str, &str, ExportFormat)| {
        let file = folder.join(format!("{}_spark.{ending}", model.name));
        format.write(&file, model, encoder, None)?;
        Ok((what, file))
    };
    files.into_iter().map(write).collect()
}

fn encoder(trainer: &Trainer) -> StateDict {
    let prefix = format!("{ENCODER_PREFIX}.");
    let own = trainer.variables.iter().filter_map(|(name, tensor)| {
        Some((name.strip_prefix(&prefix)?.to_owned(), tensor.detach().to_device(tch::Device::Cpu)))
    });
    own.collect()
}
