//! Types of settings that are more than a number.

use clap::ValueEnum;
use engine::training;
use serde::{Deserialize, Serialize};

/// The optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// LAMB as in the official fine-tuning of ResNets: the trust ratio for all
    /// parameters, no bias correction.
    Lamb,
    /// AdamW.
    Adamw,
}

/// Augmentations besides crop and flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// None.
    None,
    /// TrivialAugmentWide: one operation of random strength.
    TrivialWide,
    /// AutoAugment's policy for ImageNet (timm's `v0`): the official choice at 384
    /// pixels.
    AutoV0,
}

/// Settings that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Preset {
    /// SparK's ResNet-50 on ImageNet (the defaults): LAMB, 300 epochs.
    Resnet50,
    /// SparK's ResNet-101.
    Resnet101,
    /// SparK's ResNet-152.
    Resnet152,
    /// SparK's ResNet-200.
    Resnet200,
    /// SparK's ConvNeXt-S on ImageNet: AdamW, 400 epochs.
    ConvnextSmall,
    /// SparK's ConvNeXt-B.
    ConvnextBase,
    /// SparK's ConvNeXt-L at 224 pixels.
    ConvnextLarge,
    /// SparK's ConvNeXt-L at 384 pixels.
    #[value(name = "convnext_large_384")]
    ConvnextLarge384,
    /// Hundreds to tens of thousands of images on one device.
    #[value(name = "small-data")]
    SmallData,
    /// Small images on two cores, minutes.
    Demo,
}

impl training::Preset for Preset {
    fn toml(&self) -> &'static str {
        match self {
            Self::Resnet50 => include_str!("../../../presets/resnet50.toml"),
            Self::Resnet101 => include_str!("../../../presets/resnet101.toml"),
            Self::Resnet152 => include_str!("../../../presets/resnet152.toml"),
            Self::Resnet200 => include_str!("../../../presets/resnet200.toml"),
            Self::ConvnextSmall => include_str!("../../../presets/convnext_small.toml"),
            Self::ConvnextBase => include_str!("../../../presets/convnext_base.toml"),
            Self::ConvnextLarge => include_str!("../../../presets/convnext_large.toml"),
            Self::ConvnextLarge384 => include_str!("../../../presets/convnext_large_384.toml"),
            Self::SmallData => include_str!("../../../presets/small-data.toml"),
            Self::Demo => include_str!("../../../presets/demo.toml"),
        }
    }
}
