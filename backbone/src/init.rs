//! Initial values of parameters. Drawn on the CPU from libtorch's generator
//! (`tch::manual_seed`), so that a seed means the same model on every device.

use tch::nn::Path;
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Whatever the memory holds: for weights that are loaded right after.
    Uninitialised,
    /// One value everywhere.
    Constant(f64),
    /// Normal with mean 0, cut at ±`bound`
    /// (`torch.nn.init.trunc_normal_(std, a=-bound, b=bound)`).
    TruncatedNormal {
        /// Standard deviation before cutting.
        std: f64,
        /// Largest absolute value.
        bound: f64,
    },
    /// `kaiming_normal_(mode="fan_out", nonlinearity="relu")`.
    KaimingFanOut,
    /// Uniform within ±`bound`.
    Uniform {
        /// Largest absolute value.
        bound: f64,
    },
    /// PyTorch's own default for weights of convolutions and linear layers:
    /// uniform within ±1/√fan_in.
    Default,
}

impl Init {
    /// The trunc-normal of ConvNeXt and of SparK's decoder: std 0.02, cut at
    /// ±2 (that is, in effect not at all).
    pub const TRUNC_NORMAL_02: Self = Self::TruncatedNormal { std: 0.02, bound: 2.0 };

    /// Normal with mean 0.
    pub const fn normal(std: f64) -> Self {
        Self::TruncatedNormal { std, bound: f64::INFINITY }
    }

    /// A float32 CPU tensor of this shape.
    pub fn tensor(self, size: &[i64]) -> Tensor {
        match self {
            Self::Uninitialised => Tensor::empty(size, CPU),
            Self::Constant(value) => Tensor::full(size, value, CPU),
            // Beyond eight deviations there is nothing to cut in float32.
            Self::TruncatedNormal { std, bound } if bound > 8.0 * std => {
                Tensor::randn(size, CPU) * std
            }
            Self::TruncatedNormal { std, bound } => {
                // Inverse transform sampling between the cuts' cumulative
                // probabilities, in float64 since they can be close to 1.
                let edge = Tensor::from(bound / std / std::f64::consts::SQRT_2).erf();
                let edge = edge.double_value(&[]);
                let uniform = Tensor::rand(size, (Kind::Double, Device::Cpu)) * (2.0 * edge) - edge;
                (uniform.erfinv() * (std * std::f64::consts::SQRT_2))
                    .clamp(-bound, bound)
                    .to_kind(Kind::Float)
            }
            Self::KaimingFanOut => {
                let fan_out = size[0] * size[2..].iter().product::<i64>();
                Tensor::randn(size, CPU) * (2.0 / fan_out as f64).sqrt()
            }
            Self::Uniform { bound } => Tensor::rand(size, CPU) * (2.0 * bound) - bound,
            Self::Default => Self::default_bound(size).tensor(size),
        }
    }

    /// The start of the bias that goes with a weight of shape `weight_size`
    /// which starts like this: zero, or PyTorch's default beside its own.
    pub fn of_bias(self, weight_size: &[i64]) -> Self {
        match self {
            Self::Default => Self::default_bound(weight_size),
            Self::Uninitialised => self,
            _ => Self::Constant(0.0),
        }
    }

    fn default_bound(weight_size: &[i64]) -> Self {
        let fan_in: i64 = weight_size[1..].iter().product();
        Self::Uniform { bound: 1.0 / (fan_in.max(1) as f64).sqrt() }
    }

    /// A trainable parameter of this shape under `path`. Kernels of convolutions
    /// lie in channels-last memory, as the maps do: neither they nor their
    /// gradients are laid out anew in every step. Layers take them in any other
    /// memory, too.
    pub fn parameter(self, path: &Path, name: &str, size: &[i64]) -> Tensor {
        let mut tensor = self.tensor(size);
        if size.len() == 4 {
            tensor = tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        }
        path.add(name, tensor.to_device(path.device()), true)
    }

    /// A buffer (saved, but not trained) of this shape under `path`.
    pub fn buffer(self, path: &Path, name: &str, size: &[i64]) -> Tensor {
        path.add(name, self.tensor(size).to_device(path.device()), false)
    }
}
