use engine::optim::OptimizerKind;
use engine::settings::TrainSettings as _;
use tch::Device;

use super::*;

fn machine(device: Device, cores: usize) -> Machine {
    Machine { device, cores, processes: 1, memory: Some(20_000_000_000), bfloat16: false }
}

/// The rule without the images' files: `seconds` are what an image takes.
fn chosen(count: usize, machine: &Machine, given: &str, seconds: f64) -> TrainConfig {
    let images = Images { count, short_side: 300 };
    let mut choices = Choices::new(given.parse().unwrap());
    images.choose_recipe(&mut choices, machine).unwrap();
    images.choose_batch(&mut choices, machine).unwrap();
    let cost = StepCost { seconds, bytes: Some(50_000_000), fixed: 1 << 30 };
    images.choose_length(&mut choices, machine, &cost).unwrap();
    let mut config = choices.settings().unwrap();
    (config.data, config.run.output) = ("d".into(), "o".into());
    config.resolve().unwrap()
}

#[test]
fn the_rule_by_images_and_machine() {
    let (small, gpu) = (machine(Device::Cpu, 2), machine(Device::Cuda(0), 8));
    let of = |count, machine, seconds| {
        let config = chosen(count, machine, "", seconds);
        let optim = &config.optim;
        (config.model, config.input_size, optim.batch_size, optim.epochs, config.warmup_epochs)
    };
    let told =
        |model: &str, side, batch, epochs, warmup| (model.to_owned(), side, batch, epochs, warmup);
    assert_eq!(of(15, &small, 0.01), told("resnet18", 128, 16, 500, 20));
    assert_eq!(of(500, &small, 0.01), told("resnet18", 128, 32, 100, 5));
    // 4.3 million images in a night.
    assert_eq!(of(100_000, &small, 0.01), told("resnet18", 128, 32, 43, 2));
    assert_eq!(of(1_300_000, &small, 0.01), told("resnet18", 128, 32, 3, 1));
    assert_eq!(of(500, &gpu, 0.001), told("resnet50", 224, 64, 100, 5));
    assert_eq!(of(20_000, &gpu, 0.001), told("resnet50", 224, 64, 100, 5));
    assert_eq!(of(1_300_000, &gpu, 0.001), told("resnet50", 224, 2048, 300, 5));
}

#[test]
fn the_recipe_is_that_of_the_model() {
    let gpu = machine(Device::Cuda(0), 8);
    let weights = "backbone-weights = \"w\"\n";
    let large =
        |model: &str| chosen(1_300_000, &gpu, &format!("{weights}model = \"{model}\""), 0.001);
    let config = large("convnext_base");
    assert_eq!((config.optim.optimizer, config.mixup), (OptimizerKind::Adamw, 0.8));
    assert_eq!((config.optim.base_lr, config.layer_decay), (1e-4, 0.7));
    assert_eq!(large("regnety_016").optim.optimizer, OptimizerKind::Lamb);
    let small = chosen(500, &gpu, weights, 0.001);
    assert_eq!((small.optim.optimizer, small.layer_decay), (OptimizerKind::Adamw, 0.7));
    assert_eq!(chosen(500, &gpu, "", 0.001).layer_decay, 1.0, "nothing is pretrained");
}

#[test]
fn what_is_given_stays() {
    let given = "epochs = 1\nmodel = \"resnet34\"\nlayer-decay = 0.5\nbatch-size = 6";
    let config = chosen(500, &machine(Device::Cpu, 2), given, 0.01);
    assert_eq!((config.optim.epochs, config.warmup_epochs, config.layer_decay), (1, 0, 0.5));
    assert_eq!((config.model.as_str(), config.optim.batch_size), ("resnet34", 6));
}
