use engine::settings::TrainSettings as _;
use engine::training::auto::choose_parts;
use tch::Device;

use super::*;

const CPU: Device = Device::Cpu;
const GPU: Device = Device::Cuda(0);

fn machine(device: Device, cores: usize) -> Machine {
    Machine { device, cores, processes: 1, memory: Some(20_000_000_000), bfloat16: false }
}

/// The rule without the images' files: `seconds` and `bytes` are what an image takes.
fn chosen(count: usize, machine: &Machine, given: &str, seconds: f64, bytes: u64) -> TrainConfig {
    let images = Images { count, short_side: 500 };
    let mut choices = Choices::new(given.parse().unwrap());
    images.choose_recipe(&mut choices, machine).unwrap();
    let batch = images.choose_batch(&mut choices, machine).unwrap();
    let cost = StepCost { seconds, bytes: Some(bytes), fixed: 1 << 30 };
    let fits = |part: usize| match part as u64 * bytes < 40_000_000_000 {
        true => Ok(cost),
        false => Err(anyhow::anyhow!("CUDA out of memory")),
    };
    let parts = (batch, Images::LEAST_PART);
    let cost = choose_parts(&mut choices, machine, parts, cost, fits).unwrap();
    images.choose_length(&mut choices, machine, &cost).unwrap();
    let mut config = choices.settings().unwrap();
    (config.data, config.run.output) = ("d".into(), "o".into());
    config.resolve().unwrap()
}

/// Model, side, batch, parts, epochs, warm-up, optimizer.
type Told = (&'static str, i64, usize, usize, u64, u64, OptimizerKind);

fn told(config: &TrainConfig) -> Told {
    let model = models::registered(&config.model).unwrap().unwrap();
    let name = if model.name == "resnet18" { "resnet18" } else { "resnet50" };
    let optim = &config.optim;
    (
        name,
        config.input_size.height,
        optim.batch_size,
        optim.accum_steps,
        optim.epochs,
        config.warmup_epochs,
        optim.optimizer,
    )
}

#[test]
fn the_rule_by_images_and_machine() {
    use OptimizerKind::{Adamw, Lamb};
    let (small, many, gpu) = (machine(CPU, 2), machine(CPU, 64), machine(GPU, 8));
    let megabytes = 1_000_000;
    let of = |count, machine, seconds| told(&chosen(count, machine, "", seconds, 100 * megabytes));
    // On two cores at 50 images a second: 2.16 million in a night.
    assert_eq!(of(15, &small, 0.02), ("resnet18", 128, 16, 1, 1000, 40, Adamw));
    assert_eq!(of(500, &small, 0.02), ("resnet18", 128, 32, 1, 800, 40, Adamw));
    assert_eq!(of(20_000, &small, 0.02), ("resnet18", 128, 32, 1, 108, 5, Adamw));
    assert_eq!(of(1_300_000, &small, 0.02), ("resnet18", 128, 32, 1, 1, 0, Adamw));
    assert_eq!(of(500, &many, 0.001), ("resnet50", 224, 64, 1, 800, 40, Adamw));
    assert_eq!(of(20_000, &many, 0.001), ("resnet50", 224, 64, 1, 400, 20, Adamw));
    assert_eq!(of(15, &gpu, 0.001), ("resnet50", 224, 16, 1, 1000, 40, Adamw));
    assert_eq!(of(500, &gpu, 0.001), ("resnet50", 224, 64, 1, 800, 40, Adamw));
    assert_eq!(of(20_000, &gpu, 0.001), ("resnet50", 224, 256, 1, 400, 20, Lamb));
    // 318 steps an epoch, of whose images 40 GB hold 256 and not 512.
    assert_eq!(of(1_300_000, &gpu, 0.001), ("resnet50", 224, 4096, 16, 1572, 40, Lamb));
}

#[test]
fn learning_rates_are_the_presets() {
    let peak = |count, machine: &Machine| chosen(count, machine, "", 0.001, 1).peak_lr();
    let near = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.01, "{found}");
    // The base rate is told in three digits: to a percent.
    near(peak(500, &machine(CPU, 2)), 1e-3);
    near(peak(20_000, &machine(GPU, 2)), 8e-4);
    near(peak(1_300_000, &machine(GPU, 2)), 3.2e-3);
    let config = chosen(500, &machine(CPU, 2), "optimizer = \"lion\"", 0.001, 1);
    assert_eq!(config.optim.base_lr, 2e-4, "nobody knows a rule for it");
}

#[test]
fn what_is_given_stays_and_the_rest_goes_by_it() {
    let given = "model = \"resnet50\"\nbatch-size = 24\nepochs = 3\ninput-size = 96";
    let config = chosen(500, &machine(CPU, 2), given, 0.02, 1_000_000);
    let of = told(&config);
    assert_eq!(of, ("resnet50", 96, 24, 1, 3, 1, OptimizerKind::Adamw));
    let one = chosen(500, &machine(CPU, 2), "epochs = 1", 0.02, 1_000_000);
    assert_eq!((one.optim.epochs, one.warmup_epochs), (1, 0));
}

#[test]
fn memory_divides_the_batch() {
    let config = chosen(500, &machine(CPU, 2), "", 0.02, 1_000_000_000);
    assert_eq!(config.optim.accum_steps, 4, "12 GB hold 8 images and the weights");
}

#[test]
fn batches_are_divided_among_processes() {
    let several = Machine { processes: 3, ..machine(CPU, 2) };
    let config = chosen(15, &several, "", 0.02, 1);
    assert_eq!(config.optim.batch_size, 18);
    let config = chosen(500, &several, "accum-steps = 4", 0.02, 1);
    assert_eq!(config.optim.batch_size, 36);
}

#[test]
fn long_epochs_are_saved_within() {
    let config = chosen(1_300_000, &machine(CPU, 2), "", 0.02, 1);
    // 36 images a step, half an hour of 0.64 seconds each.
    assert_eq!((config.run.checkpoint_epochs, config.run.checkpoint_steps), (1, 2812));
    let config = chosen(15, &machine(CPU, 2), "", 0.02, 1);
    assert_eq!((config.run.checkpoint_epochs, config.run.checkpoint_steps), (50, 0));
    assert_eq!(config.picture_epochs, 100);
}
