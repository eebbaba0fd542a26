//! The namings against tables taken from the frameworks, and their inverses.

use super::*;

/// One name of each kind, canonical first.
const RESNET: [(&str, &str); 9] = [
    ("conv1.weight", "stem.conv1.weight"),
    ("bn1.running_mean", "stem.conv1.norm.running_mean"),
    ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
    ("layer1.2.bn3.num_batches_tracked", "res2.2.conv3.norm.num_batches_tracked"),
    ("layer3.22.bn2.bias", "res4.22.conv2.norm.bias"),
    ("layer4.0.downsample.0.weight", "res5.0.shortcut.weight"),
    ("layer4.0.downsample.1.running_var", "res5.0.shortcut.norm.running_var"),
    ("fc.weight", "linear.weight"),
    ("fc.bias", "linear.bias"),
];

/// Official, timm, torchvision, mmdet.
const CONVNEXT: [[&str; 4]; 12] = [
    [
        "downsample_layers.0.0.weight",
        "stem.0.weight",
        "features.0.0.weight",
        "downsample_layers.0.0.weight",
    ],
    [
        "downsample_layers.0.1.bias",
        "stem.1.bias",
        "features.0.1.bias",
        "downsample_layers.0.1.bias",
    ],
    [
        "downsample_layers.1.0.weight",
        "stages.1.downsample.0.weight",
        "features.2.0.weight",
        "downsample_layers.1.0.weight",
    ],
    [
        "downsample_layers.3.1.bias",
        "stages.3.downsample.1.bias",
        "features.6.1.bias",
        "downsample_layers.3.1.bias",
    ],
    [
        "stages.0.0.dwconv.weight",
        "stages.0.blocks.0.conv_dw.weight",
        "features.1.0.block.0.weight",
        "stages.0.0.depthwise_conv.weight",
    ],
    [
        "stages.1.2.norm.bias",
        "stages.1.blocks.2.norm.bias",
        "features.3.2.block.2.bias",
        "stages.1.2.norm.bias",
    ],
    [
        "stages.2.26.pwconv1.weight",
        "stages.2.blocks.26.mlp.fc1.weight",
        "features.5.26.block.3.weight",
        "stages.2.26.pointwise_conv1.weight",
    ],
    [
        "stages.3.1.pwconv2.bias",
        "stages.3.blocks.1.mlp.fc2.bias",
        "features.7.1.block.5.bias",
        "stages.3.1.pointwise_conv2.bias",
    ],
    ["stages.3.1.gamma", "stages.3.blocks.1.gamma", "features.7.1.layer_scale", "stages.3.1.gamma"],
    ["norm.weight", "head.norm.weight", "classifier.0.weight", "norm3.weight"],
    ["norm.bias", "head.norm.bias", "classifier.0.bias", "norm3.bias"],
    ["head.weight", "head.fc.weight", "classifier.2.weight", "head.fc.weight"],
];

/// timm, torchvision.
const REGNET: [(&str, &str); 10] = [
    ("stem.conv.weight", "stem.0.weight"),
    ("stem.bn.running_var", "stem.1.running_var"),
    ("s1.b1.conv1.conv.weight", "trunk_output.block1.block1-0.f.a.0.weight"),
    ("s2.b6.conv2.bn.bias", "trunk_output.block2.block2-5.f.b.1.bias"),
    (
        "s3.b12.conv3.bn.num_batches_tracked",
        "trunk_output.block3.block3-11.f.c.1.num_batches_tracked",
    ),
    ("s3.b1.se.fc1.weight", "trunk_output.block3.block3-0.f.se.fc1.weight"),
    ("s4.b1.se.fc2.bias", "trunk_output.block4.block4-0.f.se.fc2.bias"),
    ("s4.b1.downsample.conv.weight", "trunk_output.block4.block4-0.proj.0.weight"),
    ("s4.b1.downsample.bn.running_mean", "trunk_output.block4.block4-0.proj.1.running_mean"),
    ("head.fc.weight", "fc.weight"),
];

fn check(naming: Naming, family: Family, canonical: &str, foreign: &str) {
    let case = format!("{naming} {canonical}");
    assert_eq!(naming.to(family, canonical).as_deref(), Some(foreign), "{case}");
    assert_eq!(naming.from(family, foreign).as_deref(), Some(canonical), "{case}");
}

#[test]
fn resnet_names() {
    for (canonical, detectron2) in RESNET {
        check(Naming::Detectron2, Family::ResNet, canonical, detectron2);
        for naming in [Naming::Timm, Naming::Official, Naming::Torchvision, Naming::Mmdet] {
            check(naming, Family::ResNet, canonical, canonical);
        }
    }
}

#[test]
fn convnext_names() {
    for [official, timm, torchvision, mmdet] in CONVNEXT {
        check(Naming::Official, Family::ConvNeXt, official, official);
        check(Naming::Timm, Family::ConvNeXt, official, timm);
        check(Naming::Torchvision, Family::ConvNeXt, official, torchvision);
        check(Naming::Mmdet, Family::ConvNeXt, official, mmdet);
        assert_eq!(Naming::Detectron2.to(Family::ConvNeXt, official), None);
    }
}

#[test]
fn regnet_names() {
    for (timm, torchvision) in REGNET {
        check(Naming::Timm, Family::RegNet, timm, timm);
        check(Naming::Official, Family::RegNet, timm, timm);
        check(Naming::Torchvision, Family::RegNet, timm, torchvision);
        for naming in [Naming::Detectron2, Naming::Mmdet] {
            assert_eq!(naming.to(Family::RegNet, timm), None);
            assert!(!naming.has(Family::RegNet));
        }
    }
}

#[test]
fn names_of_no_such_network_have_no_translation() {
    for name in [
        "dense_decoder.proj.weight",
        "layer5.0.conv1.weight",
        "layer1.x.conv1.weight",
        "layer1.00.conv1.weight",
        "stages.4.0.gamma",
        "stages.0.0.dwconv.running_mean",
        "s5.b1.conv1.conv.weight",
        "s1.b0.conv1.conv.weight",
        "s1.b01.conv1.conv.weight",
        "s1.b1.conv1.conv.bias",
        "s1.b1.se.fc3.weight",
        "trunk_output.block1.block2-0.f.a.0.weight",
        "trunk_output.block1.block1-0.f.a.2.weight",
        "",
        ".",
        "fc",
    ] {
        for naming in Naming::ALL {
            for family in [Family::ResNet, Family::ConvNeXt, Family::RegNet] {
                assert_eq!(naming.to(family, name), None, "{naming} {name:?}");
                assert_eq!(naming.from(family, name), None, "{naming} {name:?}");
            }
        }
    }
}

#[test]
fn other_spellings_are_understood() {
    for (naming, family, foreign, canonical) in [
        (Naming::Timm, Family::ConvNeXt, "stem_0.weight", "downsample_layers.0.0.weight"),
        (Naming::Timm, Family::ConvNeXt, "stages_2.blocks.1.gamma", "stages.2.1.gamma"),
        (Naming::Detectron2, Family::ResNet, "stem.fc.weight", "fc.weight"),
        (Naming::Mmdet, Family::ResNet, "head.fc.bias", "fc.bias"),
        // What torch.compile, FSDP and activation checkpointing put in between.
        (Naming::Timm, Family::ResNet, "layer1._orig_mod.0.bn1.bias", "layer1.0.bn1.bias"),
        (
            Naming::Timm,
            Family::ResNet,
            "layer1._fsdp_wrapped_module.0._checkpoint_wrapped_module.bn1.bias",
            "layer1.0.bn1.bias",
        ),
    ] {
        assert_eq!(naming.from(family, foreign).as_deref(), Some(canonical));
    }
    let custom = "a._orig_mod.b";
    assert_eq!(Naming::Timm.from(Family::Custom, custom).as_deref(), Some(custom));
}

/// What detectron2's `convert_basic_c2_names` makes of Caffe2's names, in detectron2's
/// own; none for what is no tensor of a ResNet with batch norms.
#[test]
fn caffe2_names_are_those_of_detectron2() {
    for (caffe2, detectron2) in [
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res_conv1_bn_b", "stem.conv1.norm.bias"),
        ("res_conv1_bn_rm", "stem.conv1.norm.running_mean"),
        ("res_conv1_bn_riv", "stem.conv1.norm.running_var"),
        ("res2_0_branch1_w", "res2.0.shortcut.weight"),
        ("res2_0_branch1_bn_s", "res2.0.shortcut.norm.weight"),
        ("res2_0_branch2a_w", "res2.0.conv1.weight"),
        ("res2_0_branch2a_bn_b", "res2.0.conv1.norm.bias"),
        ("res3_11_branch2b_w", "res3.11.conv2.weight"),
        ("res4_22_branch2c_bn_s", "res4.22.conv3.norm.weight"),
        ("res5_2_branch2c_bn_running_mean", "res5.2.conv3.norm.running_mean"),
        ("res5_2_branch2c_bn_running_var", "res5.2.conv3.norm.running_var"),
        ("res5_0_branch2b_bn_gamma", "res5.0.conv2.norm.weight"),
        ("res5_0_branch2b_bn_beta", "res5.0.conv2.norm.bias"),
        ("pred_w", "linear.weight"),
        ("pred_b", "linear.bias"),
    ] {
        let from = |name| Naming::Detectron2.from(Family::ResNet, name);
        assert!(from(caffe2).is_some(), "{caffe2}");
        assert_eq!(from(caffe2), from(detectron2), "{caffe2}");
    }
    for name in
        ["conv1_w_momentum", "conv1_gn_s", "res6_0_branch1_w", "res2_0_branch3_w", "lr", "_w"]
    {
        assert_eq!(Naming::Detectron2.from(Family::ResNet, name), None, "{name}");
    }
}

#[test]
fn a_custom_network_is_called_the_same_everywhere() {
    for naming in Naming::ALL {
        check(naming, Family::Custom, "anything.at.all", "anything.at.all");
    }
}

#[test]
fn namings_are_read_as_they_are_written() {
    for naming in Naming::ALL {
        assert_eq!(naming.to_string().parse::<Naming>().unwrap(), naming);
    }
    assert_eq!("MMPretrain".parse::<Naming>().unwrap(), Naming::Mmdet);
    let message = "keras".parse::<Naming>().unwrap_err().to_string();
    assert!(message.contains("keras") && message.contains("detectron2"), "{message}");
}
