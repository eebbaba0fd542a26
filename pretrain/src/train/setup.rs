//! From settings to objects: device, data, model, optimizer, and where the
//! run left off.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use backbone::models::BuildOptions;
use engine::checkpoint::{self, CheckpointDir, CheckpointFile, write_file};
use engine::data::{
    Augment, Dataset, DatasetOptions, EpochSampler, Interpolation, Loader, LoaderOptions,
    Normalize, RandomHorizontalFlip, RandomResizedCrop,
};
use engine::device::parse_device;
use engine::optim::{
    AdamW, AdamWConfig, GradScaler, Lamb, LambConfig, Optimizer, Sgd, SgdConfig, param_groups,
};
use engine::run_dir::{LAST_CHECKPOINT, RunDir, shown};
use engine::settings::differences;
use tch::{Device, nn};

use super::Start;
use super::state::TrainState;
use super::step::Trainer;
use crate::config::{OptimizerKind, Precision, TrainConfig};
use crate::saved;
use crate::spark::Spark;

/// Most reading threads that are started unasked.
const MAX_WORKERS: usize = 16;

/// Everything a run works with.
pub struct Setup {
    pub run: RunDir,
    pub loader: Loader,
    pub trainer: Trainer,
    pub state: TrainState,
    pub checkpoints: CheckpointDir,
}

impl Setup {
    /// Builds everything, prints what will happen, and only then touches the
    /// run's folder.
    pub fn new(config: TrainConfig, start: &Start) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if config.threads == 0 { cores } else { config.threads };
        tch::set_num_threads(threads as i32);
        let device = parse_device(&config.device)?;

        let loader = loader(&config, cores)?;
        let mut trainer = trainer(config, device)?;
        let scaler = (trainer.config.precision == Precision::Float16).then(GradScaler::default);
        let mut state = TrainState::new(trainer.config.clone(), scaler);
        begin(start, &mut trainer, &mut state)?;

        let overwrite = *start == Start::New { overwrite: true };
        let run = RunDir::create(&trainer.config.output, overwrite, *start == Start::Resume)?;
        let checkpoints = CheckpointDir::open(&run.checkpoints())?;
        let text = toml::to_string_pretty(&trainer.config)?;
        write_file(&run.config(), text.as_bytes())?;
        announce(&trainer, &loader, &state, threads);
        Ok(Self { run, loader, trainer, state, checkpoints })
    }
}

/// Weights and state to begin with: a checkpoint's, a weight file's, or random
/// ones.
fn begin(start: &Start, trainer: &mut Trainer, state: &mut TrainState) -> Result<()> {
    let checkpoint = match start {
        Start::New { .. } => None,
        Start::Resume => Some(trainer.config.output.join(LAST_CHECKPOINT)).filter(|p| p.exists()),
        Start::From(path) => Some(path.clone()),
    };
    if let Some(path) = checkpoint {
        return restore(&path, trainer, state);
    }
    if *start == Start::Resume {
        eprintln!("no checkpoint yet: beginning at step 0");
    }
    if let Some(weights) = &trainer.config.init_weights {
        let family = trainer.config.registered_model()?.family();
        let report = saved::load_weights(weights, family, &trainer.store)?;
        eprintln!("initial weights from {}:\n{report}", weights.display());
    }
    Ok(())
}

fn loader(config: &TrainConfig, cores: usize) -> Result<Loader> {
    let options = DatasetOptions { channels: config.in_chans as usize };
    let dataset = Dataset::open(&config.data, &options)
        .with_context(|| format!("cannot train on --data {}", config.data.display()))?;
    let size = (config.input_size.height as usize, config.input_size.width as usize);
    let transform = Augment {
        crop: RandomResizedCrop::new(
            size,
            config.crop_scale.into(),
            config.crop_ratio.into(),
            Interpolation::Bicubic,
        )?,
        flip: RandomHorizontalFlip::new(config.hflip)?,
        normalize: normalize(config)?,
    };
    let sampler = EpochSampler::new(dataset.len(), config.batch_size, config.seed)?;
    let workers = if config.workers == 0 { cores.min(MAX_WORKERS) } else { config.workers };
    let options = LoaderOptions { threads: workers, prefetch: 2, max_corrupt: config.max_corrupt };
    Ok(Loader::new(Arc::new(dataset), Arc::new(transform), sampler, options)?)
}

/// The channels' statistics, which resolved settings have.
pub fn normalize(config: &TrainConfig) -> Result<Normalize> {
    let mean = config.mean.clone().context("mean is not resolved")?;
    let std = config.std.clone().context("std is not resolved")?;
    Ok(Normalize::new(mean, std)?)
}

fn trainer(config: TrainConfig, device: Device) -> Result<Trainer> {
    tch::manual_seed(config.seed as i64);
    let model = config.registered_model()?;
    let options = BuildOptions {
        in_chans: config.in_chans,
        drop_path_rate: config.drop_path.unwrap_or(0.0),
        ..BuildOptions::default()
    };
    let store = nn::VarStore::new(device);
    let build = |path: &nn::Path| model.build(path, &options);
    let spark = Spark::new(&store.root(), config.decoder_width, build)?;
    let optimizer = optimizer(&config, &store)?;
    Ok(Trainer { config, store, spark, optimizer, device })
}

fn optimizer(config: &TrainConfig, store: &nn::VarStore) -> Result<Box<dyn Optimizer>> {
    let mut params: Vec<_> =
        store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let groups = param_groups(params);
    let clip = (config.clip_grad > 0.0).then_some(config.clip_grad);
    let betas = (config.beta1, config.beta2());
    Ok(match config.optimizer {
        OptimizerKind::Lamb => {
            let options = LambConfig { betas, max_grad_norm: clip, ..LambConfig::default() };
            Box::new(Lamb::new(groups, options)?)
        }
        OptimizerKind::Adamw => {
            let options = AdamWConfig { betas, max_grad_norm: clip, ..AdamWConfig::default() };
            Box::new(AdamW::new(groups, options)?)
        }
        OptimizerKind::Sgd => {
            let options =
                SgdConfig { momentum: config.beta1, max_grad_norm: clip, ..SgdConfig::default() };
            Box::new(Sgd::new(groups, options)?)
        }
    })
}

/// Takes model, optimizer and state from a checkpoint.
fn restore(path: &Path, trainer: &mut Trainer, state: &mut TrainState) -> Result<()> {
    let file = CheckpointFile::open(path)?;
    let saved: TrainState = file.state()?;
    if saved.version != TrainState::VERSION {
        bail!(
            "{} is a checkpoint of version {}, but this program continues version {}",
            path.display(),
            saved.version,
            TrainState::VERSION
        );
    }
    checkpoint::restore(path, &file.section("model")?, &trainer.variables())?;
    trainer.optimizer.load_state(&file.section("optimizer")?)?;
    let mut changed = differences(&saved.config, &trainer.config);
    changed.retain(|line| !line.starts_with("output:") && !line.starts_with("name:"));
    if !changed.is_empty() {
        eprintln!("continuing with changed settings:\n  {}", changed.join("\n  "));
    }
    state.continue_from(saved);
    Ok(())
}

/// Says what is about to run.
fn announce(trainer: &Trainer, loader: &Loader, state: &TrainState, threads: usize) {
    let config = &trainer.config;
    let steps = loader.steps();
    let count = |prefix: &str| -> usize {
        let variables = trainer.store.variables();
        let of_prefix =
            variables.iter().filter(|(name, t)| name.starts_with(prefix) && t.requires_grad());
        of_prefix.map(|(_, tensor)| tensor.numel()).sum()
    };
    let encoder = count(crate::spark::ENCODER_PREFIX);
    let rest = count("") - encoder;
    let parts = match config.accum_steps {
        1 => String::new(),
        parts => format!(" in {parts} parts of {}", config.batch_size / parts),
    };
    let device = match trainer.device {
        Device::Cpu => format!("cpu, {threads} threads"),
        other => format!("{other:?}"),
    };
    eprintln!(
        "{}: {} on {device}, {:?}\n\
         images   {} in {} ({} other files skipped), {} px crops\n\
         model    encoder {:.1} M parameters, decoder {:.1} M, mask ratio {}\n\
         batch    {}{parts}: {steps} steps an epoch, {} in all\n\
         lr       {:.3e} at its peak ({:e} · {} / 256), {:?}, weight decay {} → {}\n\
         output   {}",
        config.name,
        config.model,
        config.precision,
        loader.dataset().len(),
        config.data.display(),
        loader.dataset().other_files(),
        config.input_size,
        encoder as f64 / 1e6,
        rest as f64 / 1e6,
        config.mask_ratio,
        config.batch_size,
        steps * config.epochs,
        config.peak_lr(),
        config.base_lr,
        config.batch_size,
        config.optimizer,
        config.weight_decay,
        config.weight_decay_end,
        shown(&config.output),
    );
    if loader.dataset().len() < config.batch_size {
        eprintln!(
            "note: {} images fill a batch of {} only by repeating; each copy gets its own crop and mask",
            loader.dataset().len(),
            config.batch_size
        );
    }
    if state.step > 0 {
        eprintln!("resuming after step {} of {}", state.step, steps * config.epochs);
    }
}
