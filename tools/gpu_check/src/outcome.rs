//! A forward and backward pass on any device and in any type, and everything that it leaves behind.
//!
//! Values depend on a seed and their place alone, and are made on the processor, so that two
//! devices compute on the same ones.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;
use backbone::{FeatureMap, PatchMask, Size};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The types of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// Everything in double precision.
    Float64,
    /// Everything in single precision.
    Float32,
    /// Parameters in float32, products in bfloat16.
    Bfloat16,
    /// Parameters in float32, products in float16.
    Float16,
}

impl Types {
    /// All, the most exact first.
    pub const ALL: [Self; 4] = [Self::Float64, Self::Float32, Self::Bfloat16, Self::Float16];

    /// As the programs' `--precision` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float64 => "float64",
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
        }
    }

    /// Of parameters and input.
    pub fn parameters(self) -> Kind {
        if self == Self::Float64 { Kind::Double } else { Kind::Float }
    }

    /// Of the arithmetic of convolutions and linear layers, if it is another one.
    pub fn compute(self) -> Option<Kind> {
        match self {
            Self::Float64 | Self::Float32 => None,
            Self::Bfloat16 => Some(Kind::BFloat16),
            Self::Float16 => Some(Kind::Half),
        }
    }
}

/// The kind of map that a pass runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// The whole grid, unmasked.
    Grid,
    /// The whole grid, masked after every layer.
    Masked,
    /// The visible patches alone.
    Packed,
}

impl Execution {
    /// What it is compared with: packed execution with the masked one, for which no index table is
    /// needed.
    pub fn reference(self) -> Self {
        if self == Self::Packed { Self::Masked } else { self }
    }

    /// For notes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grid => "on the grid",
            Self::Masked => "masked",
            Self::Packed => "packed",
        }
    }
}

/// A batch of masked images, without its pixels.
#[derive(Debug, Clone)]
pub struct Case {
    /// Images.
    pub batch: i64,
    /// Rows and columns of patches.
    pub patches: Size,
    /// Positions of a patch.
    pub patch: Size,
    /// Visibility of every patch, images first.
    pub visible: Vec<bool>,
}

impl Case {
    /// Two images of two rows of three patches, unevenly masked.
    pub fn uneven(patch: Size) -> Self {
        let visible = [1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1].map(|on| on == 1).to_vec();
        Self { batch: 2, patches: (2, 3), patch, visible }
    }

    /// Its mask.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn mask(&self, device: Device) -> Result<Rc<PatchMask>> {
        let visible = (0..).zip(&self.visible).filter(|(_, on)| **on).map(|(index, _)| index);
        let visible: Vec<i64> = visible.collect();
        Ok(PatchMask::from_visible(self.batch, self.patches, &visible, device)?)
    }

    fn size(&self, channels: i64) -> [i64; 4] {
        let (height, width) = (self.patches.0 * self.patch.0, self.patches.1 * self.patch.1);
        [self.batch, channels, height, width]
    }
}

/// Float64 values in [−1, 1] on the processor.
pub fn noise(seed: u32, size: &[i64]) -> Tensor {
    let count: i64 = size.iter().product();
    let place = Tensor::arange(count, (Kind::Double, Device::Cpu));
    let phase = f64::from(seed % 100_003) * 78.233;
    ((place * 12.9898 + phase).sin() * 43_758.545_3).frac().view(size)
}

/// Fills every variable with values that leave no branch of a network without effect: norm weights
/// and layer scales around 1, running variances above 0.
pub fn fill(store: &VarStore, seed: u32) {
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    tch::no_grad(|| {
        for ((name, mut variable), number) in variables.into_iter().zip(1..) {
            if !variable.is_floating_point() {
                continue;
            }
            let size = variable.size();
            let values = noise(seed.wrapping_add(number * 977), &size);
            let values = if size.len() > 1 {
                let fan_in: i64 = size[1..].iter().product();
                values * (3.0 / fan_in as f64).sqrt()
            } else if name.ends_with("bias") || name.ends_with("running_mean") {
                values * 0.2
            } else {
                values * 0.5 + 1.0
            };
            variable.copy_(&values);
        }
    });
}

/// Everything a pass leaves behind, by name, on the processor.
pub type Outcome = BTreeMap<String, Tensor>;

/// A store on `device` with what `build` makes in it, of these types and filled.
pub fn filled<T>(
    device: Device,
    types: Types,
    seed: u32,
    build: impl FnOnce(&VarStore) -> Result<T>,
) -> Result<(VarStore, T)> {
    let mut store = VarStore::new(device);
    let built = build(&store)?;
    if types == Types::Float64 {
        store.double();
    }
    fill(&store, seed);
    Ok((store, built))
}

/// One forward and backward of `forward` on `case` under random weights of its outputs: outputs on
/// the grid, gradients of the input and of the variables, and the buffers.
pub fn outcome(
    store: &VarStore,
    case: &Case,
    (channels, types): (i64, Types),
    execution: Execution,
    forward: impl FnOnce(&FeatureMap) -> Result<Vec<Tensor>>,
) -> Result<Outcome> {
    let device = store.device();
    let x = noise(2, &case.size(channels)).to_kind(types.parameters()).to_device(device);
    let leaf = x.set_requires_grad(true);
    let map = match execution {
        Execution::Grid => FeatureMap::Grid(leaf.shallow_clone()),
        Execution::Masked => FeatureMap::masked(&leaf, &case.mask(device)?)?,
        Execution::Packed => FeatureMap::patches(&leaf, &case.mask(device)?)?,
    };
    let outputs = forward(&map)?;
    let weighted = |(output, seed): (&Tensor, u32)| {
        let weights = noise(seed, &output.size()).to_kind(output.kind()).to_device(device);
        (output * weights).sum(Kind::Double)
    };
    let loss: Tensor = outputs.iter().zip(1..).map(weighted).sum();
    loss.f_backward()?;

    let cpu = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu);
    let mut outcome: Outcome = outputs
        .iter()
        .enumerate()
        .map(|(index, output)| (format!("output {index}"), cpu(output)))
        .collect();
    outcome.insert("gradient of the input".into(), cpu(&leaf.grad()));
    for (name, variable) in store.variables() {
        let gradient = variable.grad();
        match variable.requires_grad() {
            true if gradient.defined() => {
                outcome.insert(format!("gradient of {name}"), cpu(&gradient));
            }
            true => {}
            false => {
                outcome.insert(name, variable.copy().to_device(Device::Cpu));
            }
        }
    }
    Ok(outcome)
}
