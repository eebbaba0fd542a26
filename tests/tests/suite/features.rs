//! Colours and similarities of feature maps beside those of numpy, scikit-learn and PyTorch.

use backbone::weights::{StateDict, write_safetensors};
use pretrain::features::{similarity, stage_colours};
use spark_tests::{rule, run_python};
use tch::{Device, Kind, Tensor};

/// A map whose channels vary by different amounts, around different means.
fn map(name: &str, size: [i64; 3]) -> Tensor {
    let scales = Tensor::arange(size[0], (Kind::Double, Device::Cpu)) * -0.5;
    let (noise, means) = (rule::weight(name, &size), rule::weight("means", &[size[0]]));
    (noise * scales.exp().view([-1, 1, 1]) + means.view([-1, 1, 1])).to_kind(Kind::Float)
}

#[test]
fn colours_are_those_of_a_singular_value_decomposition() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = StateDict::new();
    for (name, size) in
        [("fine", [24, 40, 30]), ("coarse", [300, 7, 7]), ("line", [5, 1, 9]), ("two", [2, 12, 12])]
    {
        let map = map(name, size);
        let valid = rule::weight("valid", &size[1..]).gt(0.0);
        let at = [size[1] / 2, size[2] / 3];
        let some = |name: &str| format!("{name}.some");
        tensors.extend([
            (format!("{name}.colours"), stage_colours(&map, None).unwrap()),
            (some(&format!("{name}.colours")), stage_colours(&map, Some(&valid)).unwrap()),
            (format!("{name}.similarity"), similarity(&map, (at[0], at[1])).unwrap()),
            (format!("{name}.at"), Tensor::from_slice(&at)),
            (format!("{name}.valid"), valid),
            (format!("{name}.map"), map),
        ]);
    }
    let file = folder.path().join("maps.safetensors");
    write_safetensors(&file, &tensors, &Default::default()).unwrap();
    assert_eq!(run_python("features_check.py", &[&file]).trim(), "4 maps");
}
