//! Random draws: drop-path and dropout.

use tch::{Kind, Tensor};

use super::super::ssa::ValueId;
use super::{Run, Slot};
use crate::mode::DropPathDraws;
use crate::{Error, Result};

impl Run<'_> {
    /// One for every image that keeps the branch and zero for those that drop it, `[N, 1, 1, 1]`,
    /// divided by the share that keeps it if `scaled`.
    pub(super) fn drop_path(&self, site: usize, scaled: bool) -> Slot {
        let rate = self.parameters.drop_path[site];
        let Some(draws) = self.uniform(site).filter(|_| rate > 0.0) else { return Slot::Ones };
        let kept = draws.ge(rate).to_kind(self.mode.compute.unwrap_or(self.kind));
        let scale = if scaled { 1.0 - rate } else { 1.0 };
        Slot::Tensor((kept / scale).view([-1, 1, 1, 1]))
    }

    /// Draws in [0, 1) of every image, `[N]`; none where nothing is dropped.
    fn uniform(&self, site: usize) -> Option<Tensor> {
        if !self.mode.training {
            return None;
        }
        match &self.mode.drop_path {
            DropPathDraws::Off => None,
            DropPathDraws::Generator => {
                Some(Tensor::rand([self.images], (Kind::Float, self.device)))
            }
            DropPathDraws::Table(table) => Some(table.get(site as i64)),
        }
    }

    /// Dropout of elements, or of an image's channels. Each image's pattern follows from one draw
    /// of its own, so that it is the same wherever the image is computed.
    pub(super) fn dropout(
        &mut self,
        input: ValueId,
        site: usize,
        rate: f64,
        of_channels: bool,
    ) -> Result<Slot> {
        let layout = self.network.layouts[input].clone();
        let x = self.tensor(input)?;
        let site = self.parameters.drop_path.len() + site;
        let Some(draws) = self.uniform(site).filter(|_| rate > 0.0) else {
            return self.store(x, &layout);
        };
        if x.size().first() != Some(&self.images) {
            let rule = "dropout takes values whose first axis is the images";
            return Err(Error::invalid("dropout's input", format!("{:?}", x.size()), rule));
        }
        let mut size = x.size();
        if of_channels {
            size[2..].fill(1);
        }
        let kept = hashed_uniform(&draws, size[1..].iter().product()).ge(rate).view(&size[..]);
        let scaled = &x * (kept.to_kind(x.kind()) / (1.0 - rate));
        self.store(scaled, &layout)
    }
}

/// Numbers in [0, 1), `[N, count]`, that follow from `seeds` `[N]` in [0, 1) alone: PCG's output
/// function ("Hash Functions for GPU Rendering", Jarzynski and Olano 2020) of seed and place.
fn hashed_uniform(seeds: &Tensor, count: i64) -> Tensor {
    const WORD: i64 = 0xffff_ffff;
    let step = |state: &Tensor| (state * 747_796_405 + 2_891_336_453i64).bitwise_and(WORD);
    let hash = |value: &Tensor| {
        let state = step(value);
        // Tensors shift by tensors: powers of two divide as well.
        let shift = state.bitwise_right_shift_tensor_scalar(28) + 4;
        let mixed = state.bitwise_right_shift(&shift).bitwise_xor_tensor(&state);
        let word = (mixed * 277_803_737).bitwise_and(WORD);
        word.bitwise_right_shift_tensor_scalar(22).bitwise_xor_tensor(&word)
    };
    let seeds = (seeds.to_kind(Kind::Double) * 16_777_216.0).to_kind(Kind::Int64);
    let places = Tensor::arange(count, (Kind::Int64, seeds.device()));
    let mixed = hash(&(hash(&seeds).unsqueeze(1) + places).bitwise_and(WORD));
    mixed.to_kind(Kind::Double) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn draws_follow_from_the_seed_and_are_uniform() {
        let seeds = Tensor::rand([2], (Kind::Float, Device::Cpu));
        let (once, again) = (hashed_uniform(&seeds, 100_000), hashed_uniform(&seeds, 100_000));
        assert!(once.equal(&again) && !once.get(0).equal(&once.get(1)));
        assert!(once.min().double_value(&[]) >= 0.0 && once.max().double_value(&[]) < 1.0);
        for image in 0..2 {
            // The mean of 100,000 draws has a deviation of 0.0009.
            let mean = once.get(image).mean(Kind::Double).double_value(&[]);
            assert!((mean - 0.5).abs() < 0.005, "{mean}");
            let share = once.get(image).lt(0.1).to_kind(Kind::Double).mean(Kind::Double);
            assert!((share.double_value(&[]) - 0.1).abs() < 0.005);
        }
    }
}
