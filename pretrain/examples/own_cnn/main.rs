//! Pretrains a convnet of one's own on random crops of one photograph, to show
//! what it takes: the network in `network.rs`, and `Spark::new`.
//!
//! `cargo run --release -p spark-pretrain --example own_cnn -- photo.jpg`

mod network;

use anyhow::{Context, bail};
use backbone::{Mode, PatchMask};
use clap::Parser;
use network::OwnCnn;
use pretrain::spark::{Execution, Spark};
use tch::nn::OptimizerConfig;
use tch::{Device, IndexOp, Kind, Tensor, nn};

#[derive(Parser)]
struct Arguments {
    /// A photograph.
    photo: std::path::PathBuf,
    /// Training steps.
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// Crops per step.
    #[arg(long, default_value_t = 16)]
    batch: i64,
    /// Side of the crops in pixels: a multiple of 16, the network's stride.
    #[arg(long, default_value_t = 96)]
    size: i64,
    /// Share of the patches that is masked.
    #[arg(long, default_value_t = 0.6)]
    mask_ratio: f64,
}

fn main() -> anyhow::Result<()> {
    let Arguments { photo, steps, batch, size, mask_ratio } = Arguments::parse();
    if batch < 1 || !(0.0..1.0).contains(&mask_ratio) {
        bail!("--batch {batch} must be at least 1 and --mask-ratio {mask_ratio} in [0, 1)");
    }
    let photo = read(&photo)?;
    let (height, width) = (photo.size()[1], photo.size()[2]);
    let store = nn::VarStore::new(Device::Cpu);
    // The closure builds the encoder under the path it is given; the decoder
    // (192 channels at the coarsest level) fits itself to the encoder's stages.
    let spark = Spark::new(&store.root(), 192, |path| Ok(Box::new(OwnCnn::new(path))))?;
    let (rows, cols) = spark.patch_grid((size, size))?;
    if size > height || size > width {
        bail!("--size {size} must not exceed the photograph's {height}×{width} pixels");
    }
    let keep = ((rows * cols) as f64 * (1.0 - mask_ratio)).round().max(1.0) as i64;

    let mut optimizer = nn::AdamW::default().build(&store, 1e-3)?;
    for step in 1..=steps {
        let crops: Vec<Tensor> = (0..batch).map(|_| random_crop(&photo, size)).collect();
        // The same number of patches of every image stays visible.
        let order =
            Tensor::rand([batch, rows * cols], (Kind::Float, Device::Cpu)).argsort(1, false);
        let active = order.lt(keep).view([batch, 1, rows, cols]);
        let mask = PatchMask::from_active(&active)?;
        let pass =
            spark.forward(&Tensor::stack(&crops, 0), &mask, &Mode::train(), Execution::Packed)?;
        optimizer.backward_step_clip_norm(&pass.loss, 5.0);
        if step == 1 || step % 20 == 0 {
            println!("step {step:>4}  loss {:.4}", pass.loss.double_value(&[]));
        }
    }
    Ok(())
}

/// The photograph `[3, H, W]`, standardised.
fn read(path: &std::path::Path) -> anyhow::Result<Tensor> {
    let image = image::open(path).with_context(|| path.display().to_string())?.to_rgb8();
    let size = [i64::from(image.height()), i64::from(image.width()), 3];
    let pixels = Tensor::from_slice(image.as_raw()).view(size).to_kind(Kind::Float);
    let deviation = pixels.std(false).clamp_min(1.0);
    Ok(((&pixels - pixels.mean(None)) / deviation).permute([2, 0, 1]))
}

fn random_crop(photo: &Tensor, size: i64) -> Tensor {
    let start = |length: i64| {
        Tensor::randint(length - size + 1, [1], (Kind::Int64, Device::Cpu)).int64_value(&[0])
    };
    let (top, left) = (start(photo.size()[1]), start(photo.size()[2]));
    photo.i((.., top..top + size, left..left + size))
}
