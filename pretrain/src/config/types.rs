//! Types of settings that are more than a number.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use engine::presets;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::Device;

use crate::spark::Execution;

/// Height and width in pixels; written `224` or `192x256` (height first).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSize {
    /// Rows of pixels.
    pub height: i64,
    /// Columns of pixels.
    pub width: i64,
}

impl InputSize {
    /// Equal sides.
    pub fn square(side: i64) -> Self {
        Self { height: side, width: side }
    }
}

impl fmt::Display for InputSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.height == self.width {
            write!(f, "{}", self.height)
        } else {
            write!(f, "{}x{}", self.height, self.width)
        }
    }
}

impl FromStr for InputSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.trim().parse::<i64>().ok().filter(|&side| side > 0);
        let parsed = match text.split_once('x') {
            None => side(text).map(Self::square),
            Some((height, width)) => {
                side(height).zip(side(width)).map(|(height, width)| Self { height, width })
            }
        };
        parsed.ok_or_else(|| {
            format!("{text:?} is no size in pixels; write 224, or 192x256 for height x width")
        })
    }
}

impl Serialize for InputSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.height == self.width {
            serializer.serialize_i64(self.height)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for InputSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Side(i64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Side(side) => side.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What the encoder of a run computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutionChoice {
    /// The faster of both on a GPU, packed on a processor
    Auto,
    /// The visible patches alone
    Packed,
    /// Whole images, masked after every layer
    Masked,
}

impl ExecutionChoice {
    /// The one that is asked for by name.
    pub fn named(self) -> Option<Execution> {
        match self {
            Self::Auto => None,
            Self::Packed => Some(Execution::Packed),
            Self::Masked => Some(Execution::MaskedDense),
        }
    }

    /// That of a new run on `device`; none if both are to be timed there.
    pub fn on(self, device: Device) -> Option<Execution> {
        // Packed execution was made for processors, and is the faster there whatever the network.
        let known = (!device.is_cuda()).then_some(Execution::Packed);
        self.named().or(known)
    }
}

presets! {
    /// Chosen by the images and the machine: model, crop size, batch, arithmetic, length.
    #[default]
    Auto = "auto",
    /// The paper's recipe (the flags' defaults): batch 4096, 1600 epochs, LAMB.
    Paper = "paper",
    /// The paper's ConvNeXt-L at 384 px.
    Paper384 = "paper-384",
    /// Tens of thousands of images on one GPU.
    OneGpu = "one-gpu",
    /// Hundreds to thousands of images on one GPU or CPU.
    SmallData = "small-data",
    /// A handful of photographs on two cores, minutes.
    Demo = "demo",
}
