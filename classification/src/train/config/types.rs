//! Types of settings that are more than a number.

use clap::ValueEnum;
use engine::presets;
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
pub enum AugmentPolicy {
    /// None.
    None,
    /// TrivialAugmentWide: one operation of random strength.
    TrivialWide,
    /// AutoAugment's policy for ImageNet (timm's `v0`): the official choice at 384
    /// pixels.
    AutoV0,
}

presets! {
    /// Chosen by the images and the machine: model, image size, batch, arithmetic, length.
    #[default]
    Auto = "auto",
    /// SparK's ResNet-50 on ImageNet (the flags' defaults): LAMB, 300 epochs.
    Resnet50 = "resnet50",
    /// SparK's ResNet-101.
    Resnet101 = "resnet101",
    /// SparK's ResNet-152.
    Resnet152 = "resnet152",
    /// SparK's ResNet-200.
    Resnet200 = "resnet200",
    /// SparK's ConvNeXt-S on ImageNet: AdamW, 400 epochs.
    ConvnextSmall = "convnext_small",
    /// SparK's ConvNeXt-B.
    ConvnextBase = "convnext_base",
    /// SparK's ConvNeXt-L at 224 pixels.
    ConvnextLarge = "convnext_large",
    /// SparK's ConvNeXt-L at 384 pixels.
    ConvnextLarge384 = "convnext_large_384",
    /// Hundreds to tens of thousands of images on one device.
    SmallData = "small-data",
    /// Small images on two cores, minutes.
    Demo = "demo",
}
