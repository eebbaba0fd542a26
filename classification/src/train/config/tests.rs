use engine::settings::Span;
use test_support::{of_preset, presets_survive_a_file};

use super::*;

fn preset(preset: Preset, more: &str) -> Result<TrainConfig> {
    of_preset::<TrainConfig>(&preset, more)?.resolve()
}

#[test]
fn presets_are_valid_and_survive_a_file() {
    presets_survive_a_file::<Preset, _, _>(TrainConfig::resolve);
}

/// Model, side, batch, epochs, warm-up, base lr, layer decay, weight decay,
/// Mixup, repeats, drop-path, EMA: the official `downstream_imagenet/arg.py`.
type Recipe = (&'static str, usize, usize, u64, u64, f64, f64, f64, f64, usize, f64, f64);

#[test]
fn recipes_are_the_official_ones() {
    use Preset as P;
    let table: [(Preset, Recipe); 8] = [
        (P::Resnet50, ("resnet50", 224, 2048, 300, 5, 2e-3, 0.7, 0.02, 0.1, 1, 0.05, 0.9999)),
        (P::Resnet101, ("resnet101", 224, 2048, 300, 5, 1e-3, 0.8, 0.02, 0.1, 1, 0.2, 0.9999)),
        (P::Resnet152, ("resnet152", 224, 2048, 300, 5, 1e-3, 0.8, 0.02, 0.1, 1, 0.2, 0.9999)),
        (P::Resnet200, ("resnet200", 224, 2048, 300, 5, 1e-3, 0.8, 0.02, 0.1, 1, 0.2, 0.9999)),
        (
            P::ConvnextSmall,
            ("convnext_small", 224, 4096, 400, 20, 2e-4, 0.7, 0.01, 0.8, 3, 0.3, 0.9999),
        ),
        (
            P::ConvnextBase,
            ("convnext_base", 224, 4096, 400, 20, 1e-4, 0.7, 0.01, 0.8, 3, 0.4, 0.9999),
        ),
        (
            P::ConvnextLarge,
            ("convnext_large", 224, 4096, 200, 10, 1e-4, 0.7, 0.02, 0.8, 3, 0.5, 0.9999),
        ),
        (
            P::ConvnextLarge384,
            ("convnext_large", 384, 1024, 200, 20, 6e-5, 0.7, 0.01, 0.8, 3, 0.5, 0.99995),
        ),
    ];
    for (choice, expected) in table {
        let c = preset(choice, "").unwrap();
        let found: Recipe = (
            models::registered(&c.model).unwrap().unwrap().name.as_ref(),
            c.input_size,
            c.optim.batch_size,
            c.optim.epochs,
            c.warmup_epochs,
            c.optim.base_lr,
            c.layer_decay,
            c.optim.weight_decay,
            c.mixup,
            c.aug_repeats,
            c.drop_path.unwrap(),
            c.optim.ema,
        );
        assert_eq!(found, expected);
        let (optimizer, loss) = match c.model.starts_with("resnet") {
            true => (OptimizerKind::Lamb, Loss::Bce),
            false => (OptimizerKind::Adamw, Loss::CrossEntropy),
        };
        assert_eq!((c.optim.optimizer, c.loss()), (optimizer, loss), "{choice:?}");
        let large = c.input_size == 384;
        let policy = if large { AugmentPolicy::AutoV0 } else { AugmentPolicy::TrivialWide };
        assert_eq!(
            (c.augment, c.crop_mode == CropMode::Squash, c.crop_pct == 0.95),
            (policy, large, !large)
        );
        let common =
            (c.cutmix, c.mixup_switch_prob, c.label_smoothing, c.random_erasing, c.optim.clip_grad);
        assert_eq!(common, (1.0, 0.5, 0.1, 0.25, 0.0));
        assert_eq!(
            (c.crops.crop_scale, c.crops.hflip, c.optim.ema_warmup),
            (Span::new(0.08, 1.0), 0.5, false)
        );
    }
    let half = preset(P::Resnet50, "batch-size = 1024").unwrap();
    assert_eq!(half.peak_lr(), 8e-3);
}

#[test]
fn evaluations_are_rare_at_first() {
    let config = preset(Preset::Resnet50, "").unwrap();
    let early: Vec<u64> = (1..=30).filter(|epoch| config.evaluates_after(*epoch)).collect();
    assert_eq!(early, [5, 10, 15, 20, 25, 30]);
    assert!(!config.evaluates_after(99) && config.evaluates_after(100));
    assert!((100..=300).all(|epoch| config.evaluates_after(epoch)));
    // The first third of 31 ends within the eleventh epoch.
    let config = preset(Preset::Resnet50, "epochs = 31").unwrap();
    let all: Vec<u64> = (1..=13).filter(|epoch| config.evaluates_after(*epoch)).collect();
    assert_eq!(all, [5, 10, 11, 12, 13]);
    let config = preset(Preset::Demo, "epochs = 7\neval-epochs = 3").unwrap();
    let all: Vec<u64> = (1..=7).filter(|epoch| config.evaluates_after(*epoch)).collect();
    assert_eq!(all, [3, 6, 7]);
}

#[test]
fn settings_out_of_range_are_named() {
    let error = |more: &str| preset(Preset::Demo, more).unwrap_err().to_string();
    assert!(error("layer-decay = 0.0").contains("layer-decay is 0, but it must be in (0, 1]"));
    assert!(error("label-smoothing = 1.0").contains("label-smoothing"));
    assert!(error("accum-steps = 3").contains("accum-steps is 3, but it must divide"));
    assert!(error("model = \"resnet51\"").contains("resnet51"));
    assert!(error("epochs = 2").contains("warmup-epochs is 2, but it must be below epochs 2"));
    assert!(error("repeats = 0").contains("aug-repeats is 0"));
    assert!(error("mixup = -1.0").contains("mixup is -1"));
    assert!(error("mixups = 1.0").contains("mixups"));
    let both = "weights = \"a\"\nbackbone-weights = \"b\"";
    assert!(error(both).contains("both given"));
}
