//! A forward and backward pass on any device and in any type, and everything that it leaves behind.
//!
//! Values depend on a seed and their place alone, so that two devices compute on the same ones.

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

/// Float64 values in [−1, 1) that are the same on every device: they are made of whole numbers.
pub fn noise(seed: u32, size: &[i64], device: Device) -> Tensor {
    // Below 2³¹, so that products with another such number fit into 63 bits.
    const MASK: i64 = (1 << 31) - 1;
    let mixed = |x: Tensor, factor: i64| -> Tensor {
        let x = x * factor;
        // The low bits of a product are the regular ones.
        let high = x.bitwise_right_shift_tensor_scalar(16);
        x.bitwise_xor_tensor(&high).bitwise_and(MASK)
    };
    let count: i64 = size.iter().product();
    let place = Tensor::arange(count, (Kind::Int64, device)) + i64::from(seed) * 7_919 + 1;
    let mixed = mixed(mixed(place.bitwise_and(MASK), 1_103_515_245), 1_540_483_477);
    (mixed.to_kind(Kind::Double) * (2.0 / (MASK as f64 + 1.0)) - 1.0).view(size)
}

/// What variables are filled with.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    /// Picks the values.
    pub seed: u32,
    /// The mean of norms' weights and layer scales.
    pub norms: f64,
}

/// Fills every variable with values that leave no branch of a network without effect; running
/// variances are around 1.
fn fill(store: &VarStore, filling: Filling) {
    let Filling { seed, norms } = filling;
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    tch::no_grad(|| {
        for ((name, mut variable), number) in variables.into_iter().zip(1..) {
            if !variable.is_floating_point() {
                continue;
            }
            let size = variable.size();
            let values = noise(seed.wrapping_add(number * 977), &size, variable.device());
            let values = if size.len() > 1 {
                let fan_in: i64 = size[1..].iter().product();
                values * (3.0 / fan_in as f64).sqrt()
            } else if name.ends_with("bias") || name.ends_with("running_mean") {
                values * 0.2
            } else if name.ends_with("running_var") {
                values * 0.5 + 1.0
            } else {
                values * (0.5 * norms) + norms
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
    filling: Filling,
    build: impl FnOnce(&VarStore) -> Result<T>,
) -> Result<(VarStore, T)> {
    let mut store = VarStore::new(device);
    let built = build(&store)?;
    if types == Types::Float64 {
        store.double();
    }
    fill(&store, filling);
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
    let x = noise(2, &case.size(channels), device).to_kind(types.parameters());
    let leaf = x.set_requires_grad(true);
    let map = match execution {
        Execution::Grid => FeatureMap::Grid(leaf.shallow_clone()),
        Execution::Masked => FeatureMap::masked(&leaf, &case.mask(device)?)?,
        Execution::Packed => FeatureMap::patches(&leaf, &case.mask(device)?)?,
    };
    let outputs = forward(&map)?;
    let weighted = |(output, seed): (&Tensor, u32)| {
        let weights = noise(seed, &output.size(), device).to_kind(output.kind());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spread_over_their_range_and_no_two_seeds_share_them() {
        let [a, b] = [1, 2].map(|seed| noise(seed, &[10_000], Device::Cpu));
        for values in [&a, &b] {
            let mean = values.mean(Kind::Double).double_value(&[]);
            let square = values.square().mean(Kind::Double).double_value(&[]);
            assert!(mean.abs() < 0.03 && (square - 1.0 / 3.0).abs() < 0.03, "{mean} {square}");
            assert!(values.min().double_value(&[]) >= -1.0 && values.max().double_value(&[]) < 1.0);
        }
        // Neither with another seed nor with its neighbour.
        let together = |a: &Tensor, b: &Tensor| (a * b).mean(Kind::Double).double_value(&[]).abs();
        assert!(together(&a, &b) < 0.03);
        assert!(together(&a.narrow(0, 0, 9_999), &a.narrow(0, 1, 9_999)) < 0.03);
    }
}
