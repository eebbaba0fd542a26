//! Types of settings that are more than a number.

use clap::ValueEnum;
use engine::training;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// By a factor at each milestone.
    Step,
    /// Along half a cosine to a thousandth.
    Cosine,
}

/// Settings that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
#[value(rename_all = "snake_case")]
pub enum Preset {
    /// SparK's ResNet-50 recipe in detectron2 (the defaults): 90,000 iterations.
    #[value(name = "mask_rcnn_resnet50_1x")]
    #[default]
    MaskRcnnResnet50_1x,
    /// SparK's ConvNeXt-B recipe in mmdet: 36 epochs.
    #[value(name = "mask_rcnn_convnext_base_3x")]
    MaskRcnnConvnextBase3x,
    /// torchvision's Mask R-CNN, which reads and writes its state dicts.
    #[value(name = "mask_rcnn_torchvision")]
    MaskRcnnTorchvision,
    /// The ResNet-50 recipe on one GPU, in bfloat16.
    #[value(name = "one-gpu")]
    OneGpu,
    /// Hundreds to thousands of images on one device.
    #[value(name = "small-data")]
    SmallData,
    /// The data set of `detect make-demo` on two cores, minutes.
    Demo,
}

impl training::Preset for Preset {
    fn toml(&self) -> &'static str {
        match self {
            Self::MaskRcnnResnet50_1x => {
                include_str!("../../../presets/mask_rcnn_resnet50_1x.toml")
            }
            Self::MaskRcnnConvnextBase3x => {
                include_str!("../../../presets/mask_rcnn_convnext_base_3x.toml")
            }
            Self::MaskRcnnTorchvision => {
                include_str!("../../../presets/mask_rcnn_torchvision.toml")
            }
            Self::OneGpu => include_str!("../../../presets/one-gpu.toml"),
            Self::SmallData => include_str!("../../../presets/small-data.toml"),
            Self::Demo => include_str!("../../../presets/demo.toml"),
        }
    }
}
