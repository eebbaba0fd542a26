//! Loading that changes what a file has, and what refuses to be loaded.

use super::*;

/// Tensors of these names and shapes, all ones.
fn ones(tensors: &str) -> StateDict {
    let tensor = |text: &str| {
        let (name, shape) = text.split_once(' ').unwrap();
        let shape: Vec<i64> = shape.split(' ').map(|side| side.parse().unwrap()).collect();
        (name.to_owned(), Tensor::ones(&shape, (Kind::Float, Device::Cpu)))
    };
    tensors.split(", ").map(tensor).collect()
}

fn ramp(shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    Tensor::arange(count, (Kind::Float, Device::Cpu)).reshape(shape)
}

/// A ResNet's stem and one norm, as Caffe2 has them.
fn caffe2() -> StateDict {
    [
        ("conv1_w", ramp(&[2, 3, 1, 1])),
        ("res_conv1_bn_s", ramp(&[2])),
        ("res_conv1_bn_b", ramp(&[2])),
        ("pred_w", ramp(&[5, 2])),
        ("conv1_w_momentum", ramp(&[2, 3, 1, 1])),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

fn stem_of(in_chans: i64) -> StateDict {
    let shapes: [(&str, &[i64]); 5] = [
        ("conv1.weight", &[2, in_chans, 1, 1]),
        ("bn1.weight", &[2]),
        ("bn1.bias", &[2]),
        ("bn1.running_mean", &[2]),
        ("bn1.running_var", &[2]),
    ];
    filled(&shapes, 7.0, Kind::Float)
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

#[test]
fn caffe2s_weights_are_completed_and_turned_to_rgb() {
    let target = stem_of(3);
    let options = LoadOptions::default();
    let report = load(&target, Family::ResNet, &as_file(caffe2()), &options).unwrap();
    assert_eq!((report.naming, report.missing.len()), (Naming::Detectron2, 0));
    let [r, g, b] = [58.395, 57.12, 57.375];
    let expected = [2.0 * r, 1.0 * g, 0.0, 5.0 * r, 4.0 * g, 3.0 * b];
    for (found, expected) in floats(&target["conv1.weight"]).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    assert_eq!(floats(&target["bn1.running_mean"]), [0.0, 0.0]);
    // detectron2's FrozenBatchNorm2d: torch.ones(n) - eps
    assert_eq!(floats(&target["bn1.running_var"]), [1.0 - 1e-5; 2]);
    let text = report.to_string();
    for part in ["turned to RGB", "scale and shift alone", "stride"] {
        assert!(text.contains(part), "{text:?} should mention {part:?}");
    }
    // To one channel it is first turned, then added up.
    let target = stem_of(1);
    load(&target, Family::ResNet, &as_file(caffe2()), &options).unwrap();
    let found = floats(&target["conv1.weight"]);
    assert!((found[0] - (2.0 * r + g)).abs() < 1e-4, "{found:?}");
}

#[test]
fn input_channels_that_timm_does_not_convert_are_refused() {
    for (from, into) in [(4, 3), (1, 3), (2, 4), (4, 1), (5, 4), (3, 3)] {
        let target =
            filled(&[("conv1.weight", &[2, into, 3, 3]), ("bn1.bias", &[2])], 0.0, Kind::Float);
        let shapes: [(&str, &[i64]); 2] = [("conv1.weight", &[2, from, 3, 3]), ("bn1.bias", &[2])];
        let file = as_file(filled(&shapes, 1.0, Kind::Float));
        let loaded = load(&target, Family::ResNet, &file, &LoadOptions::default());
        assert_eq!(loaded.is_ok(), from == into, "{from} to {into}");
        if let Err(error) = loaded {
            let (found, expected) = (format!("[2, {from}, 3, 3]"), format!("[2, {into}, 3, 3]"));
            let text = error.to_string();
            assert!(text.contains(&found) && text.contains(&expected), "{text}");
        }
    }
    // Another kernel, or other filters, are another network.
    for shape in [[2i64, 3, 7, 7], [4, 3, 3, 3]] {
        let target =
            filled(&[("conv1.weight", &[2, 4, 3, 3]), ("bn1.bias", &[2])], 0.0, Kind::Float);
        let file =
            as_file(filled(&[("conv1.weight", &shape), ("bn1.bias", &[2])], 1.0, Kind::Float));
        assert!(load(&target, Family::ResNet, &file, &LoadOptions::default()).is_err());
    }
}

#[test]
fn values_that_are_not_finite_are_told_before_anything_is_loaded() {
    let target = filled(&MODEL, 0.0, Kind::Float);
    let mut tensors = filled(&MODEL, 1.0, Kind::Float);
    tensors.insert("head.weight".into(), Tensor::from(f32::NAN));
    let unused = as_file(tensors);
    load(&target, Family::ConvNeXt, &unused, &LoadOptions::default()).unwrap();
    let mut tensors = filled(&MODEL, 2.0, Kind::Half);
    let _ = tensors.get_mut("norm.weight").unwrap().get(1).fill_(f64::NAN);
    let file = as_file(tensors);
    let message =
        load(&target, Family::ConvNeXt, &file, &LoadOptions::default()).unwrap_err().to_string();
    for part in ["given.pth", "not finite", "norm.weight (1 of 4 values NaN)"] {
        assert!(message.contains(part), "{message:?} should mention {part:?}");
    }
    assert_eq!(target["norm.weight"].double_value(&[0]), 1.0, "something was loaded");
    assert!(inspect(&file, &[]).to_string().contains("not finite: 1 tensor, norm.weight"));
    let broken = [("norm.weight".to_owned(), file.tensors["norm.weight"].shallow_clone())].into();
    let message = export(Family::ConvNeXt, Naming::Timm, &broken).unwrap_err().to_string();
    assert!(message.contains("not exported"), "{message}");
}

#[test]
fn a_tensor_that_is_needed_but_was_left_out_is_named() {
    let target = filled(&MODEL, 0.0, Kind::Float);
    let mut file = as_file(filled(&MODEL, 1.0, Kind::Float));
    file.tensors.remove("stages.0.0.gamma");
    file.left_out.insert("stages.0.0.gamma".into(), "is sparse".into());
    file.left_out.insert("loss.weight".into(), "is of type complex64".into());
    let message =
        load(&target, Family::ConvNeXt, &file, &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("1 cannot be read: stages.0.0.gamma is sparse"), "{message}");
    assert!(!message.contains("loss.weight"), "{message}");
    file.tensors.insert("stages.0.0.gamma".into(), ramp(&[4]));
    let report = load(&target, Family::ConvNeXt, &file, &LoadOptions::default()).unwrap();
    assert!(report.to_string().contains("2 left out: loss.weight is of type"), "{report}");
}

#[test]
fn a_file_of_no_registered_model_is_described() {
    let cifar = "module.conv1.weight 16 3 3 3, module.bn1.running_mean 16, \
                 module.layer1.2.conv2.weight 16 16 3 3, module.layer2.2.conv2.weight 32 32 3 3, \
                 module.layer3.2.conv2.weight 64 64 3 3, module.linear.weight 10 64";
    let mobile = "features.0.0.weight 32 3 3 3, features.1.conv.0.0.weight 32 1 3 3, \
                  classifier.1.weight 1000 1280";
    let expected: [(&str, &[&str]); 3] = [
        (
            cifar,
            &[
                "4 convolutions, 1 batch norms, 1 matrices",
                "widths: 16, 32, 64; kernels of 3",
                "module.conv1.weight, 3 channels to 16, 3×3",
                "stages: 3 of 3, 3, 3 blocks",
                "likely: a ResNet-20 for images of some 32 pixels (CIFAR)",
            ],
        ),
        (mobile, &["1 of them depthwise", "likely: a MobileNet V2"]),
        ("some.tensor 0 3 0", &["0 convolutions", "a kind that is not known"]),
    ];
    for (tensors, parts) in expected {
        let file = as_file(ones(tensors));
        let text = inspect(&file, &candidates(3).unwrap()).to_string();
        assert!(text.contains("model: none that is known"), "{text}");
        for part in parts {
            assert!(text.contains(part), "{text:?} should mention {part:?}");
        }
    }
}

#[test]
fn the_channels_of_an_image_are_those_of_the_first_convolution() {
    for (tensors, expected) in [
        ("conv1.weight 64 4 7 7, layer1.0.conv1.weight 64 64 3 3", Some(4)),
        ("b.0.weight 64 1 7 7, b.4.0.conv1.weight 64 64 3 3", Some(1)),
        ("rpn.conv.0.0.weight 256 256 3 3, backbone.body.conv1.weight 64 3 7 7", Some(3)),
        ("features.0.0.weight 96 3 4 4, features.1.0.block.0.weight 96 1 7 7", Some(3)),
        (
            "sparse_encoder.sp_cnn.conv1.weight 64 3 7 7, dense_decoder.dec.0.conv.0.weight 16 16 3 3",
            Some(3),
        ),
        ("module.stem.conv.weight 32 5 3 3, module.s1.b1.conv1.conv.weight 48 32 1 1", Some(5)),
        ("stem.0.weight 32 4 3 3, trunk_output.block1.block1-0.f.a.0.weight 48 32 1 1", Some(4)),
        ("fc.weight 10 4", None),
    ] {
        assert_eq!(as_file(ones(tensors)).in_chans(), expected, "{tensors}");
    }
}
