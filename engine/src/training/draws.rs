//! Random draws that depend on the sample alone.

use tch::{Device, Tensor};

use data::rng::Rng;

/// Stream of the draws, apart from the data's.
const DROP_PATH_STREAM: u64 = 0x6472_6f70;

/// Uniform draws for drop-path, `[blocks, samples]`, from the seed, the epoch and each sample's
/// number in the epoch, so that neither a batch's parts nor a restart nor the number of
/// processes changes them.
pub fn drop_path_table(
    seed: u64,
    epoch: u64,
    positions: &[u64],
    blocks: usize,
    device: Device,
) -> Tensor {
    let draws: Vec<f32> = positions
        .iter()
        .flat_map(|&position| {
            let mut rng = Rng::new(seed, &[DROP_PATH_STREAM, epoch, position]);
            (0..blocks).map(move |_| rng.uniform() as f32)
        })
        .collect();
    let shape = [positions.len() as i64, blocks as i64];
    Tensor::from_slice(&draws).view(shape).tr().to_device(device)
}
