//! From settings to objects: device, data, model, optimizer, and where the
//! run left off.

use std::sync::Arc;

use anyhow::{Context, Result};
use backbone::models::{BuildOptions, Model};
use data::{
    Dataset, DatasetOptions, EpochSampler, Interpolation, Loader, Normalize, PretrainTransform,
    RandomHorizontalFlip, RandomResizedCrop,
};
use engine::device::{describe_device, enable_cudnn_benchmark, open_device};
use engine::distributed::{LISTING, ProcessGroup};
use engine::graph::model_of_run;
use engine::optim::{LambConfig, Optimizer, OptimizerKind, param_groups};
use engine::precision::Precision;
use engine::progress::during;
use engine::run_dir::display_path;
use engine::training::{ResumeMode, Run, Setup, Trainer};
use tch::{Device, nn};
use words::counted;

use super::PretrainState;
use super::outputs::Outputs;
use super::probe::Probe;
use super::task::Pretraining;
use crate::config::{BASE_BATCH, TrainConfig};
use crate::spark::{Execution, Spark};

/// Builds everything, of the images `listed` if they are; nothing of the run's folder is touched.
///
/// # Errors
/// Settings and files that nothing can be built of.
pub fn prepare(
    config: TrainConfig,
    start: &ResumeMode,
    world: &ProcessGroup,
    listed: Option<Arc<Dataset>>,
) -> Result<Setup<Pretraining>> {
    let (device, threads) = open_device(&config.compute, world)?;
    enable_cudnn_benchmark(device);

    let model = model_of_run(&config.model, &config.run.folder()?, start, world)?;
    config.check_model(&model)?;
    // A run that goes on was checked when it began.
    let from_file = model.graph().filter(|graph| graph.has_weights());
    world.all_ok(from_file.map_or(Ok(()), |graph| graph.verify().map_err(anyhow::Error::from)))?;
    let loader = loader(&config, &model, world, listed)?;
    let probe = world.all_ok(Probe::open(&config, world))?;
    let built = during(world.is_main(), "building the model", || build(&config, &model, device));
    let built = world.all_ok(built)?;
    let (store, spark, optimizer) = built;
    let settings = (&config.optim, &config.compute);
    let trainer = Trainer::new(&store, optimizer, settings, world)?;
    let trainer = world.all_ok(trainer.carrying(&model))?;
    let outputs = world.is_main().then(|| Outputs::new(&loader, &config)).transpose();
    let outputs = world.all_ok(outputs)?;
    let execution = config.execution.on(device);
    let task = Pretraining {
        config: config.clone(),
        model,
        store,
        spark,
        // What it is of a run that goes on, or after both are timed, is known when it begins.
        execution: execution.unwrap_or(Execution::Packed),
        probe,
        outputs,
    };
    let total_steps = loader.steps() * config.optim.epochs;
    let (state, loader) = (PretrainState { execution }, Arc::new(loader));
    Ok(Setup { task, trainer, state, loader, total_steps, threads, announce })
}

/// Lists the images, each process those of its own shards or all.
///
/// # Errors
/// Images that cannot be listed.
pub fn list(config: &TrainConfig, world: &ProcessGroup) -> Result<Arc<Dataset>> {
    let options = DatasetOptions {
        relist: config.crops.refresh_index,
        own_shards: config.shard_by_rank,
        reduced_decode: config.crops.reduced_decode,
        deep: true,
        storage: config.crops.storage(world),
        ..DatasetOptions::with_channels(config.in_chans as usize)
    };
    let open = || Ok::<_, engine::Error>(Dataset::open_among(&config.data, &options, world)?);
    let list = || world.with_timeout(LISTING, open);
    let dataset = during(world.is_main(), "listing the images", list)
        .with_context(|| format!("cannot train on --data {}", config.data.display()))?;
    Ok(Arc::new(dataset))
}

fn loader(
    config: &TrainConfig,
    model: &Model,
    world: &ProcessGroup,
    listed: Option<Arc<Dataset>>,
) -> Result<Loader> {
    let part = world.micro_batch_size(config.optim.batch_size, config.optim.accum_steps)?;
    if world.is_alone() || !config.compute.sync_bn {
        config.check_statistics(part, model)?;
    }
    let dataset = listed.map_or_else(|| list(config, world), Ok)?;
    let size = (config.input_size.height as usize, config.input_size.width as usize);
    let transform = PretrainTransform {
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
        EpochSampler::own_shards(dataset.len(), most, own, config.compute.seed, rank, size)?
    } else {
        EpochSampler::distributed(dataset.len(), own, config.compute.seed, rank, size)?
    };
    let options = config.loading.options(world);
    Ok(Loader::new(dataset, Arc::new(transform), sampler, options)?)
}

/// The channels' statistics, which resolved settings have.
pub fn normalize(config: &TrainConfig) -> Result<Normalize> {
    let mean = config.mean.clone().context("mean is not resolved")?;
    let std = config.std.clone().context("std is not resolved")?;
    Ok(Normalize::new(mean, std)?)
}

fn build(
    config: &TrainConfig,
    model: &Model,
    device: Device,
) -> Result<(nn::VarStore, Spark, Box<dyn Optimizer>)> {
    tch::manual_seed(config.compute.seed as i64);
    let options = BuildOptions {
        in_chans: config.in_chans,
        drop_path_rate: config.drop_path.unwrap_or(0.0),
        ..BuildOptions::default()
    };
    let mut store = nn::VarStore::new(device);
    let build = |path: &nn::Path| model.build(path, &options);
    let spark = Spark::new(&store.root(), config.decoder_width, build)?;
    if config.compute.precision == Precision::Float64 {
        store.double();
    }
    let mut params: Vec<_> =
        store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let groups = param_groups(params);
    let optimizer = OptimizerKind::build(&config.optim, groups, LambConfig::default())?;
    Ok((store, spark, optimizer))
}

/// Says what is about to run.
fn announce(run: &Run<Pretraining>, loader: &Loader, threads: usize) {
    let Run { task, trainer, .. } = run;
    let config = &task.config;
    let count = |prefix: &str| -> usize {
        let variables = trainer.variables.iter();
        let of_prefix = variables.filter(|(name, t)| name.starts_with(prefix) && t.requires_grad());
        of_prefix.map(|(_, tensor)| tensor.numel()).sum()
    };
    let encoder = count(crate::spark::ENCODER_PREFIX);
    let rest = count("") - encoder;
    let device = describe_device(trainer.device, threads);
    eprintln!(
        "{}: {} on {device}, {:?}\n\
         images   {} in {} ({} skipped), {} px crops\n\
         model    encoder {:.1} M parameters, decoder {:.1} M, mask ratio {}\n\
         batch    {}\n\
         lr       {}, {:?}, weight decay {} → {}\n\
         output   {}",
        config.run.name,
        config.model,
        config.compute.precision,
        loader.dataset().total_samples(),
        config.data.display(),
        counted(loader.dataset().other_files(), "other file"),
        config.input_size,
        encoder as f64 / 1e6,
        rest as f64 / 1e6,
        config.mask_ratio,
        run.describe_batch(),
        config.optim.describe_lr(BASE_BATCH),
        config.optim.optimizer,
        config.optim.weight_decay,
        config.weight_decay_end,
        display_path(&config.run.output),
    );
    if task.model.graph().is_some() && config.init_weights.is_none() && run.plan.done == 0 {
        eprintln!("weights  those of {}, the decoder's random", config.model);
    }
    if loader.dataset().total_samples() < config.optim.batch_size {
        eprintln!(
            "note: a batch of {} has the {} several times; each copy gets its own crop and mask",
            config.optim.batch_size,
            counted(loader.dataset().total_samples(), "image")
        );
    }
}
