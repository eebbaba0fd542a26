//! The arithmetic of a run.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::Kind;

/// Type of weights and arithmetic of a pass that is compared with other implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
// What is said of the values would stand in the flag's help.
#[allow(missing_docs)]
pub enum Dtype {
    Float32,
    Float64,
}

impl Dtype {
    /// As libtorch calls it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Float64 => Kind::Double,
        }
    }
}

/// Arithmetic of convolutions and linear layers; parameters stay float32, but for `Float64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision.
    #[value(alias = "fp32")]
    Float32,
    /// Double precision, parameters and images too: slow, to compare runs exactly.
    #[value(alias = "fp64")]
    Float64,
    /// Half the memory traffic, same range as float32.
    #[value(alias = "bf16")]
    Bfloat16,
    /// Half precision with dynamic loss scaling.
    #[value(alias = "fp16")]
    Float16,
}

impl Precision {
    /// The element type of parameters and images.
    pub fn parameters(self) -> Kind {
        match self {
            Self::Float64 => Kind::Double,
            Self::Float32 | Self::Bfloat16 | Self::Float16 => Kind::Float,
        }
    }

    /// The element type to cast to, if any.
    pub fn compute(self) -> Option<Kind> {
        match self {
            Self::Float32 | Self::Float64 => None,
            Self::Bfloat16 => Some(Kind::BFloat16),
            Self::Float16 => Some(Kind::Half),
        }
    }
}
