use backbone::models;

use super::*;

fn classifier(name: &str, classes: i64) -> Classifier {
    let options = ClassifierOptions { uninitialised: true, ..ClassifierOptions::new(classes) };
    Classifier::build(&models::find(name).unwrap(), &options, Device::Cpu).unwrap()
}

/// The layer of each name, and the learning rate's scale at a decay of one half
/// as a power of two.
fn layers(model: &str, names: &[&str]) -> Vec<(usize, i32)> {
    let classifier = classifier(model, 3);
    let variables = classifier.variables();
    let groups = classifier.param_groups(0.5);
    let scale = |name: &str| {
        let of = |group: &&ParamGroup| group.params.iter().any(|(own, _)| own == name);
        groups.iter().find(of).unwrap_or_else(|| panic!("{model} has no {name}")).lr_scale
    };
    let places: Vec<LayerPosition> = variables.keys().map(|name| classifier.place(name)).collect();
    let (ids, _) = engine::optim::layer_ids(&places, classifier.layer_grouping());
    let id = |name: &str| ids[variables.keys().position(|own| own == name).unwrap()];
    names.iter().map(|name| (id(name), scale(name).log2().round() as i32)).collect()
}

/// A model, its last layer's number, and parts with theirs.
type Layers = (&'static str, usize, &'static [(&'static str, usize)]);

/// Blocks by layer, as `get_layer_id_and_scale_exp` of the official
/// `downstream_imagenet/models` numbers them: first and last block of every layer
/// of the second and third stage.
const RESNETS: [Layers; 4] = [
    (
        "resnet50",
        6,
        &[
            ("layer2.1", 2),
            ("layer2.2", 3),
            ("layer2.3", 3),
            ("layer3.0", 4),
            ("layer3.2", 4),
            ("layer3.3", 5),
            ("layer3.5", 5),
        ],
    ),
    (
        "resnet101",
        12,
        &[
            ("layer2.1", 2),
            ("layer2.2", 3),
            ("layer3.0", 4),
            ("layer3.2", 4),
            ("layer3.3", 5),
            ("layer3.20", 10),
            ("layer3.21", 11),
            ("layer3.22", 11),
        ],
    ),
    (
        "resnet152",
        13,
        &[
            ("layer2.3", 2),
            ("layer2.4", 3),
            ("layer2.7", 3),
            ("layer3.0", 4),
            ("layer3.3", 4),
            ("layer3.4", 5),
            ("layer3.31", 11),
            ("layer3.32", 12),
            ("layer3.35", 12),
        ],
    ),
    (
        "resnet200",
        17,
        &[
            ("layer2.3", 2),
            ("layer2.4", 3),
            ("layer2.20", 7),
            ("layer2.23", 7),
            ("layer3.0", 8),
            ("layer3.3", 8),
            ("layer3.4", 9),
            ("layer3.35", 16),
        ],
    ),
];

#[test]
fn layers_of_the_resnets_are_the_official_ones() {
    for (model, last, blocks) in RESNETS {
        let mut expected = vec![
            ("conv1.weight".to_owned(), 0),
            ("bn1.bias".to_owned(), 0),
            ("layer1.0.conv1.weight".to_owned(), 1),
            ("layer1.2.bn3.weight".to_owned(), 1),
            ("layer2.0.downsample.0.weight".to_owned(), 2),
            ("layer4.0.downsample.1.weight".to_owned(), last),
            ("layer4.2.conv3.weight".to_owned(), last),
            ("fc.weight".to_owned(), last + 1),
            ("fc.bias".to_owned(), last + 1),
        ];
        expected.extend(blocks.iter().map(|(block, id)| (format!("{block}.conv2.weight"), *id)));
        check(model, last, &expected);
    }
}

#[test]
fn layers_of_the_convnexts_are_the_official_ones() {
    // (model, blocks of the third stage, the last layer)
    let models = [
        ("convnext_small", 27, 12),
        ("convnext_base", 27, 12),
        ("convnext_large", 27, 12),
        ("convnext_tiny", 9, 6),
    ];
    for (model, blocks, last) in models {
        let mut expected: Vec<(String, usize)> = [
            ("downsample_layers.0.0.weight", 0),
            ("downsample_layers.0.1.bias", 0),
            ("stages.0.0.dwconv.weight", 1),
            ("stages.0.2.gamma", 1),
            ("downsample_layers.1.1.weight", 2),
            ("stages.1.2.pwconv1.weight", 2),
            ("downsample_layers.2.0.weight", 3),
            ("downsample_layers.2.1.weight", 3),
            ("downsample_layers.3.1.weight", last),
            ("stages.3.2.pwconv2.bias", last),
            ("norm.weight", last + 1),
            ("norm.bias", last + 1),
            ("head.weight", last + 1),
            ("head.bias", last + 1),
        ]
        .map(|(name, id)| (name.to_owned(), id))
        .to_vec();
        expected.extend((0..blocks).map(|b| (format!("stages.2.{b}.norm.weight"), 3 + b / 3)));
        check(model, last, &expected);
    }
}

fn check(model: &str, last: usize, expected: &[(String, usize)]) {
    let names: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    for ((name, id), found) in expected.iter().zip(layers(model, &names)) {
        assert_eq!(found, (*id, *id as i32 - last as i32 - 1), "{model} {name}");
    }
}

#[test]
fn vectors_biases_and_layer_scales_do_not_decay() {
    let classifier = classifier("convnext_tiny", 5);
    for group in classifier.param_groups(0.7) {
        for (name, tensor) in &group.params {
            let decays = tensor.dim() > 1 && !name.ends_with("gamma");
            assert_eq!(group.weight_decay_scale, f64::from(u8::from(decays)), "{name}");
        }
    }
    let learned =
        |groups: &[ParamGroup]| groups.iter().map(|group| group.params.len()).sum::<usize>();
    let parameters = classifier.variables().values().filter(|v| v.requires_grad()).count();
    for decay in [1.0, 0.7] {
        assert_eq!(learned(&classifier.param_groups(decay)), parameters);
    }
}

#[test]
fn a_new_head_is_small_and_scaled() {
    let model = models::find("resnet18").unwrap();
    let deviation = |head_init_scale| {
        let options = ClassifierOptions { head_init_scale, ..ClassifierOptions::new(50) };
        let classifier = Classifier::build(&model, &options, Device::Cpu).unwrap();
        let variables = classifier.variables();
        assert_eq!(variables["fc.bias"].abs().max().double_value(&[]), 0.0);
        variables["fc.weight"].std(false).double_value(&[])
    };
    // 25,600 draws: the deviation's own is 0.02 / √51,200 = 9e-5; five of them.
    assert!((deviation(1.0) - 0.02).abs() < 4.5e-4);
    assert!((deviation(0.1) - 0.002).abs() < 4.5e-5);
}

#[test]
fn heads_of_other_sizes_are_refused_with_a_way_out() {
    let one = classifier("resnet18", 4);
    // What was there in memory may be no numbers, which are not loaded.
    let zeros = one.variables().into_iter().map(|(name, t)| (name, t.zeros_like()));
    let zeros: weights::StateDict = zeros.collect();
    let mut headless: weights::StateDict =
        zeros.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
    let file = WeightFile::from_tensors("four.pth", zeros);
    let message = classifier("resnet18", 3).load(&file).unwrap_err().to_string();
    assert!(message.contains("four.pth has 4 classes, expected 3"), "{message}");
    assert!(message.contains("--reset-head"), "{message}");
    classifier("resnet18", 4).load(&file).unwrap();
    // The backbone alone is of any number of classes.
    classifier("resnet18", 3).load_backbone(&file).unwrap();

    headless.retain(|name, _| !name.starts_with("fc."));
    let file = WeightFile::from_tensors("backbone.pth", headless);
    let message = one.load(&file).unwrap_err().to_string();
    assert!(message.contains("has no classifier"), "{message}");
}

#[test]
fn features_are_normalised_before_a_convnexts_head() {
    tch::manual_seed(4);
    let options = ClassifierOptions::new(7);
    let model = models::find("convnext_tiny").unwrap();
    let classifier = Classifier::build(&model, &options, Device::Cpu).unwrap();
    let images = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
    let logits = tch::no_grad(|| classifier.forward(&images, &Mode::eval())).unwrap();
    assert_eq!(logits.size(), [2, 7]);
    let _ = classifier.variables()["norm.weight"].set_requires_grad(false).zero_();
    let logits = tch::no_grad(|| classifier.forward(&images, &Mode::eval())).unwrap();
    assert_eq!(logits.abs().max().double_value(&[]), 0.0, "only the head's bias is left");
}
