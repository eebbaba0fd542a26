//! From settings to objects: device, data, model, optimizer, and where the
//! run left off.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use backbone::models::BuildOptions;
use data::{
    Augment, Dataset, DatasetOptions, EpochSampler, Interpolation, Loader, LoaderOptions,
    Normalize, RandomHorizontalFlip, RandomResizedCrop,
};
use engine::device::{described, device_among, tune_for_one_size, use_threads_among};
use engine::distributed::{Gradients, World};
use engine::optim::{
    AdamW, AdamWConfig, GradScaler, Lamb, LambConfig, Optimizer, Sgd, SgdConfig, param_groups,
};
use engine::run_dir::shown;
use engine::training::{
    RunFiles, Start, open_run, parts_of_batch, restore_run, saved_state, share_run,
    tell_world_change,
};
use tch::{Device, nn};

use super::probe::Probe;
use super::state::TrainState;
use super::step::Trainer;
use crate::config::{OptimizerKind, Precision, TrainConfig};
use crate::saved;
use crate::spark::Spark;

/// How long processes wait for rank 0's listing of the data: hours, on a slow disk.
const LISTING: Duration = Duration::from_secs(6 * 3600);

/// Everything a run works with.
pub struct Setup {
    pub files: RunFiles,
    pub loader: Loader,
    pub trainer: Trainer,
    pub state: TrainState,
    pub probe: Option<Probe>,
}

impl Setup {
    /// Builds everything, prints what will happen, and only then touches the
    /// run's folder.
    pub fn new(config: TrainConfig, start: &Start, world: &World) -> Result<Self> {
        let threads = use_threads_among(config.execution.threads, world);
        let device = world.agree(device_among(&config.execution.device, world))?;
        tune_for_one_size(device);
        world.use_device(device)?;

        let loader = loader(&config, world)?;
        let probe = world.agree(Probe::open(&config, world))?;
        let mut trainer = world.agree(trainer(config, device, world))?;
        trainer.gradients = Gradients::new(world, &trainer.store)?;
        let scaler =
            (trainer.config.execution.precision == Precision::Float16).then(GradScaler::default);
        let mut state = TrainState::new(trainer.config.clone(), scaler, world.size());
        let made = if world.is_main() { begin(start, &mut trainer, &mut state) } else { Ok(()) };
        let variables = trainer.variables();
        let (optimizer, averages) = (trainer.optimizer.as_mut(), None);
        share_run(world, made, &variables, optimizer, averages, (&mut state, |state| state.step))?;

        let files = open_run(world, &trainer.config.run.output, start, &trainer.config)?;
        if world.is_main() {
            announce(&trainer, &loader, &state, threads);
        }
        Ok(Self { files, loader, trainer, state, probe })
    }
}

/// Weights and state to begin with: a checkpoint's, a weight file's, or random
/// ones.
fn begin(start: &Start, trainer: &mut Trainer, state: &mut TrainState) -> Result<()> {
    if let Some(file) = start.open(&trainer.config.run.output)? {
        let saved: TrainState = saved_state(&file, TrainState::VERSION)?;
        let variables = trainer.variables();
        let settings = (&saved.config, &trainer.config);
        restore_run(&file, &variables, trainer.optimizer.as_mut(), settings)?;
        let (batch_size, synchronised) =
            (trainer.config.optim.batch_size, trainer.config.execution.sync_bn);
        tell_world_change(&trainer.world, saved.processes, batch_size, synchronised);
        if trainer.config.shard_by_rank && saved.processes != trainer.world.size() {
            eprintln!("with --own-shards each process now reads other shards: batches are others");
        }
        state.continue_from(saved);
        if matches!(start, Start::From { .. }) {
            state.forget_best();
        }
        return Ok(());
    }
    if let Some(weights) = &trainer.config.init_weights {
        let family = trainer.config.registered_model()?.family();
        let report = saved::load_weights(weights, family, trainer.config.in_chans, &trainer.store)?;
        eprintln!("initial weights from {}:\n{report}", weights.display());
    }
    Ok(())
}

fn loader(config: &TrainConfig, world: &World) -> Result<Loader> {
    let part = world.part_of(config.optim.batch_size, config.optim.accum_steps)?;
    if world.is_alone() || !config.execution.sync_bn {
        config.check_statistics(part)?;
    }
    let options = DatasetOptions {
        relist: config.crops.refresh_index,
        own_shards: config.shard_by_rank,
        reduced_decode: config.crops.reduced_decode,
        deep: true,
        ..DatasetOptions::with_channels(config.in_chans as usize)
    };
    let open = || Dataset::open_among(&config.data, &options, world);
    let dataset = world
        .patiently(LISTING, open)
        .with_context(|| format!("cannot train on --data {}", config.data.display()))?;
    let size = (config.input_size.height as usize, config.input_size.width as usize);
    let transform = Augment {
        crop: RandomResizedCrop::new(
            size,
            config.crops.crop_scale.into(),
            config.crops.crop_ratio.into(),
            Interpolation::Bicubic,
        )?,
        flip: RandomHorizontalFlip::new(config.crops.hflip)?,
        normalize: normalize(config)?,
    };
    let own = part * config.optim.accum_steps;
    let (rank, size) = (world.rank(), world.size());
    let sampler = if config.shard_by_rank {
        let most = dataset.most_samples();
        EpochSampler::own_shards(dataset.len(), most, own, config.execution.seed, rank, size)?
    } else {
        EpochSampler::distributed(dataset.len(), own, config.execution.seed, rank, size)?
    };
    let options =
        LoaderOptions::on_cores(config.loading.workers, config.loading.max_corrupt, world.cores());
    Ok(Loader::new(Arc::new(dataset), Arc::new(transform), sampler, options)?)
}

/// The channels' statistics, which resolved settings have.
pub fn normalize(config: &TrainConfig) -> Result<Normalize> {
    let mean = config.mean.clone().context("mean is not resolved")?;
    let std = config.std.clone().context("std is not resolved")?;
    Ok(Normalize::new(mean, std)?)
}

fn trainer(config: TrainConfig, device: Device, world: &World) -> Result<Trainer> {
    tch::manual_seed(config.execution.seed as i64);
    let model = config.registered_model()?;
    let options = BuildOptions {
        in_chans: config.in_chans,
        drop_path_rate: config.drop_path.unwrap_or(0.0),
        ..BuildOptions::default()
    };
    let mut store = nn::VarStore::new(device);
    let build = |path: &nn::Path| model.build(path, &options);
    let spark = Spark::new(&store.root(), config.decoder_width, build)?;
    if config.execution.precision == Precision::Float64 {
        store.double();
    }
    // Of one process until all have got this far.
    let gradients = Gradients::alone();
    let optimizer = optimizer(&config, &store)?;
    let part_size = world.part_of(config.optim.batch_size, config.optim.accum_steps)?;
    let world = world.clone();
    Ok(Trainer { config, store, spark, optimizer, device, world, gradients, part_size })
}

fn optimizer(config: &TrainConfig, store: &nn::VarStore) -> Result<Box<dyn Optimizer>> {
    let mut params: Vec<_> =
        store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let groups = param_groups(params);
    let clip = (config.optim.clip_grad > 0.0).then_some(config.optim.clip_grad);
    let betas = (config.optim.beta1, config.beta2());
    Ok(match config.optim.optimizer {
        OptimizerKind::Lamb => {
            let options = LambConfig { betas, max_grad_norm: clip, ..LambConfig::default() };
            Box::new(Lamb::new(groups, options)?)
        }
        OptimizerKind::Adamw => {
            let options = AdamWConfig { betas, max_grad_norm: clip, ..AdamWConfig::default() };
            Box::new(AdamW::new(groups, options)?)
        }
        OptimizerKind::Sgd => {
            let options = SgdConfig {
                momentum: config.optim.beta1,
                max_grad_norm: clip,
                ..SgdConfig::default()
            };
            Box::new(Sgd::new(groups, options)?)
        }
    })
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
    let parts = parts_of_batch(&trainer.world, config.optim.batch_size, config.optim.accum_steps);
    let device = described(trainer.device, threads);
    eprintln!(
        "{}: {} on {device}, {:?}\n\
         images   {} in {} ({} other files skipped), {} px crops\n\
         model    encoder {:.1} M parameters, decoder {:.1} M, mask ratio {}\n\
         batch    {}{parts}: {steps} steps an epoch, {} in all\n\
         lr       {:.3e} at its peak ({:e} · {} / 256), {:?}, weight decay {} → {}\n\
         output   {}",
        config.run.name,
        config.model,
        config.execution.precision,
        loader.dataset().total_samples(),
        config.data.display(),
        loader.dataset().other_files(),
        config.input_size,
        encoder as f64 / 1e6,
        rest as f64 / 1e6,
        config.mask_ratio,
        config.optim.batch_size,
        steps * config.optim.epochs,
        config.peak_lr(),
        config.optim.base_lr,
        config.optim.batch_size,
        config.optim.optimizer,
        config.optim.weight_decay,
        config.weight_decay_end,
        shown(&config.run.output),
    );
    if loader.dataset().total_samples() < config.optim.batch_size {
        eprintln!(
            "note: {} images fill a batch of {} only by repeating; each copy gets its own crop and mask",
            loader.dataset().total_samples(),
            config.optim.batch_size
        );
    }
    if state.step > 0 {
        eprintln!("resuming after step {} of {}", state.step, steps * config.optim.epochs);
    }
}
