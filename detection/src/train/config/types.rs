//! Types of settings that are more than a number.

use clap::ValueEnum;
use engine::presets;
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

presets! {
    /// Chosen by the data and the machine: detector, image and anchor sizes, batch, length.
    #[default]
    Auto = "auto",
    /// SparK's ResNet-50 recipe in detectron2 (the flags' defaults): 90,000 iterations.
    MaskRcnnResnet50_1x = "mask_rcnn_resnet50_1x",
    /// SparK's ConvNeXt-B recipe in mmdet: 36 epochs.
    MaskRcnnConvnextBase3x = "mask_rcnn_convnext_base_3x",
    /// torchvision's Mask R-CNN, which reads and writes its state dicts.
    MaskRcnnTorchvision = "mask_rcnn_torchvision",
    /// The ResNet-50 recipe on one GPU, in bfloat16.
    OneGpu = "one-gpu",
    /// Hundreds to thousands of images on one device.
    SmallData = "small-data",
    /// The data set of `detect make-demo` on two cores, minutes.
    Demo = "demo",
}
