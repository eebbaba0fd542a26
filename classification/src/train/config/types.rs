//! Types of settings that are more than a number.

use clap::ValueEnum;
use engine::training;
use serde::{Deserialize, Deserializer, Serialize};

/// How images are brought to a square in evaluation; timm's `crop_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CropMode {
    /// The short side is resized, and the centre cropped.
    #[value(alias = "false")]
    Center,
    /// The whole image is resized, out of proportion.
    #[value(alias = "true")]
    Squash,
}

impl<'de> Deserialize<'de> for CropMode {
    /// From its name, or from what `eval-squash` was: whether to squash.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Squash(bool),
            Name(String),
        }
        let name = match Written::deserialize(deserializer)? {
            Written::Squash(squash) => squash.to_string(),
            Written::Name(name) => name,
        };
        Self::from_str(&name, false).map_err(serde::de::Error::custom)
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
#[value(rename_all = "snake_case")]
pub enum Preset {
    /// SparK's ResNet-50 on ImageNet (the defaults): LAMB, 300 epochs.
    #[default]
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
