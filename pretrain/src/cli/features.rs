//! `pretrain features`.

use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use backbone::weights::StateDict;
use backbone::{Backbone, FeatureMap, Mode, PatchMask, Size};
use clap::Args;
use data::write_file;
use engine::run_dir::display_path;
use image::{Rgb, RgbImage};
use tch::{Device, Kind, Tensor};
use words::counted;

use super::image_flags::{ImageFlags, MaskFlags, Prepared};
use crate::config::check_pretrainable;
use crate::features::{NEUTRAL, similarity, stage_colours};
use crate::picture::{Tile, hide, png, ramp, tile_sheet, to_rgb};
use crate::spark::patch_grid;
use crate::train::normalize;

const EXAMPLES: &str = "\
Each stage's features are drawn by their first three principal components over the positions of the
picture, as red, green and blue: positions of one colour have similar features. The components are
each picture's own, so that colours of two pictures cannot be compared.

Examples:
  pretrain features --weights runs/first --output sheet.png photos/*.jpg
  pretrain features --weights runs/first --similar 100,120 --output sheet.png cat.jpg
  pretrain features --weights runs/first --sparse --mask mask.json --output sheet.png cat.jpg
  pretrain features --weights resnet50-timm --input-size 448 --output sheet.png cat.jpg";

const TENSORS: &str =
    "Also write images, features, colours and similarities as tensors, .safetensors";

/// Flags of `pretrain features`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("tensors", |flag| flag.help(TENSORS)),
    mut_arg("mask", |flag| flag.requires("sparse")),
    mut_arg("mask_ratio", |flag| flag.requires("sparse")),
    mut_arg("seed", |flag| flag.requires("sparse"))
)]
pub struct FeaturesArgs {
    #[command(flatten)]
    images: ImageFlags,
    /// Also draw the cosine similarity of all positions to the one at this pixel: row and column of
    /// the resized and cropped picture
    #[arg(long, value_name = "Y,X")]
    similar: Option<Pixel>,
    /// Run on visible patches alone, as in pretraining; masked ones are drawn grey
    #[arg(long)]
    sparse: bool,
    #[command(flatten)]
    mask: MaskFlags,
}

/// Row and column of a pixel.
#[derive(Debug, Clone, Copy)]
struct Pixel(i64, i64);

impl FromStr for Pixel {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let numbers = text.split_once(',').map(|(y, x)| (y.trim().parse(), x.trim().parse()));
        let Some((Ok(y), Ok(x))) = numbers else {
            return Err("it must be a row and a column, such as 100,120");
        };
        Ok(Self(y, x))
    }
}

/// Computes, draws and writes.
///
/// # Errors
/// Files that cannot be read, sizes or masks that do not fit, a pixel outside of the picture or in
/// a masked patch.
pub fn run(args: FeaturesArgs) -> Result<()> {
    args.images.check_outputs(&args.mask)?;
    let shown = args.images.open()?;
    let (network, _store) = shown.saved.backbone(&shown.model, shown.device)?;
    let (mask, how) = if args.sparse {
        let (mask, how) = masked(&shown, network.as_ref(), &args.mask)?;
        (Some(mask), format!("sparse, {how}"))
    } else {
        (None, "dense".to_owned())
    };
    if let Some(pixel) = args.similar {
        check_pixel(pixel, &shown.images, mask.as_deref(), &args.images.images)?;
    }
    let seen = Seen::of(&shown.images, network.as_ref(), mask.as_ref(), args.similar)?;
    let sheet = draw(&shown, &seen, mask.as_deref(), args.similar, &how)?;
    write_file(&args.images.output, &png(&sheet)?)?;
    let (stages, model) = (seen.features.len(), &shown.model.name);
    let stages = counted(stages, "stage");
    println!("{stages} of {model}, {how}; sheet: {}", display_path(&args.images.output));
    args.images.write_tensors(|| seen.tensors(&shown.images))
}

/// The mask of a sparse pass, and its words in the caption.
fn masked(
    shown: &Prepared,
    network: &dyn Backbone,
    flags: &MaskFlags,
) -> Result<(Rc<PatchMask>, String)> {
    check_pretrainable(&shown.model)?;
    let size = shown.images.size();
    let grid = patch_grid(network, (size[2], size[3]))?;
    let masking = flags.masking(shown.config.mask_ratio, grid)?;
    Ok((masking.mask(size[0], grid, shown.device)?, masking.to_string()))
}

/// Features of a masked patch are all 0 and similar to nothing.
fn check_pixel(
    Pixel(y, x): Pixel,
    images: &Tensor,
    mask: Option<&PatchMask>,
    paths: &[PathBuf],
) -> Result<()> {
    let size = images.size();
    let (height, width) = (size[2], size[3]);
    ensure!(
        (0..height).contains(&y) && (0..width).contains(&x),
        "similar is {y},{x}, but the pictures have rows 0 to {} and columns 0 to {}",
        height - 1,
        width - 1
    );
    let Some(mask) = mask else { return Ok(()) };
    let (rows, cols) = mask.patches();
    let (row, col) = (y * rows / height, x * cols / width);
    let there = mask.active((1, 1)).select(3, col).select(2, row).reshape([-1]);
    let there = Vec::<bool>::try_from(there.to_device(Device::Cpu))?;
    if let Some(image) = there.iter().position(|visible| !visible) {
        bail!(
            "similar is {y},{x}, but the patch there (row {row}, column {col}) is masked in {}: \
             choose another pixel or mask",
            paths[image].display()
        );
    }
    Ok(())
}

/// What is drawn, one tensor a stage, on the processor.
struct Seen {
    /// `[N, C, h, w]`, 0 where masked.
    features: Vec<Tensor>,
    /// uint8 `[N, 3, h, w]`.
    colours: Vec<Tensor>,
    /// bool `[N, h, w]`, true where visible; none of a dense pass.
    valid: Vec<Tensor>,
    /// `[N, h, w]`, none if not asked for.
    similarities: Vec<Tensor>,
}

impl Seen {
    fn of(
        images: &Tensor,
        network: &dyn Backbone,
        mask: Option<&Rc<PatchMask>>,
        similar: Option<Pixel>,
    ) -> Result<Self> {
        let input = match mask {
            None => FeatureMap::Grid(images.shallow_clone()),
            Some(mask) => FeatureMap::patches(images, mask)?,
        };
        let maps = tch::no_grad(|| network.forward(&input, &Mode::eval()))?;
        let mut seen =
            Self { features: vec![], colours: vec![], valid: vec![], similarities: vec![] };
        for (map, stage) in maps.iter().zip(network.stages()) {
            let grid = map.to_grid().to_device(Device::Cpu);
            let (height, width) = map.grid_size();
            let valid = mask.map(|mask| {
                let (rows, cols) = mask.patches();
                mask.active((height / rows, width / cols)).squeeze_dim(1).to_device(Device::Cpu)
            });
            seen.colours.push(of_each(&grid, |image, feature| {
                stage_colours(feature, valid.as_ref().map(|valid| valid.get(image)).as_ref())
            })?);
            if let Some(Pixel(y, x)) = similar {
                // Of a size that is no multiple of the stride, the last position is a part.
                let last = (height - 1, width - 1);
                let at: Size = ((y / stage.stride).min(last.0), (x / stage.stride).min(last.1));
                seen.similarities.push(of_each(&grid, |_, feature| similarity(feature, at))?);
            }
            seen.features.push(grid);
            seen.valid.extend(valid);
        }
        Ok(seen)
    }

    fn tensors(self, images: &Tensor) -> StateDict {
        let parts = [
            ("feature", self.features),
            ("colours", self.colours),
            ("valid", self.valid),
            ("similarity", self.similarities),
        ];
        let mut tensors = StateDict::new();
        tensors.insert("image".into(), images.to_device(Device::Cpu));
        for (name, stages) in parts {
            for (stage, tensor) in stages.into_iter().enumerate() {
                tensors.insert(format!("{name}{stage}"), tensor);
            }
        }
        tensors
    }
}

/// What `of` makes of each image's map `[C, h, w]` of `grid`, in one tensor.
fn of_each(grid: &Tensor, of: impl Fn(i64, &Tensor) -> backbone::Result<Tensor>) -> Result<Tensor> {
    let each = (0..grid.size()[0]).map(|image| of(image, &grid.get(image)));
    Ok(Tensor::stack(&each.collect::<backbone::Result<Vec<Tensor>>>()?, 0))
}

/// For each image a row of colours and, if asked for, one of similarities.
fn draw(
    shown: &Prepared,
    seen: &Seen,
    mask: Option<&PatchMask>,
    similar: Option<Pixel>,
    how: &str,
) -> Result<RgbImage> {
    let statistics = normalize(&shown.config)?;
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let pixels = to_rgb(&shown.images, &wide(statistics.mean()), &wide(statistics.std()))?;
    let (width, height) = pixels.images[0].dimensions();
    let mut rows = Vec::new();
    for (image, mut picture) in (0..).zip(pixels.images) {
        if let Some(mask) = mask {
            let visible = mask.active((1, 1)).get(image).reshape([-1]).to_device(Device::Cpu);
            let (rows, cols) = mask.patches();
            let grid = (rows as u32, cols as u32);
            hide(&mut picture, &Vec::<bool>::try_from(visible)?, grid, Rgb([NEUTRAL; 3]));
        }
        let tile = |picture, label| Tile { picture, label, mark: None };
        let mut colours = vec![tile(picture.clone(), format!("{width}×{height}"))];
        for (feature, colour) in seen.features.iter().zip(&seen.colours) {
            let size = feature.size();
            let label = format!("{}×{}, {} channels", size[3], size[2], size[1]);
            colours.push(tile(rgb_of(&colour.get(image))?, label));
        }
        rows.push(colours);
        let Some(Pixel(y, x)) = similar else { continue };
        let middle = |pixel: i64, side: u32| (pixel as f64 + 0.5) / f64::from(side);
        let mark = Some((middle(y, height), middle(x, width)));
        let mut similarities = vec![Tile { picture, label: format!("{y},{x}"), mark }];
        for (stage, map) in seen.similarities.iter().enumerate() {
            let valid = seen.valid.get(stage).map(|valid| valid.get(image));
            let (picture, label) = similarity_map(&map.get(image), valid.as_ref())?;
            similarities.push(Tile { picture, label, mark });
        }
        rows.push(similarities);
    }
    let mut caption =
        format!("{}, {how}; principal components 1 to 3 in red, green, blue", shown.model.name);
    if similar.is_some() {
        caption += "; cosine similarity to the marked position, from dark to bright";
    }
    if let Some(remark) = pixels.remark {
        caption += &format!(" ({remark})");
    }
    let stages = (1..=seen.features.len()).map(|stage| format!("stage {stage}"));
    let headings: Vec<String> = ["image".to_owned()].into_iter().chain(stages).collect();
    Ok(tile_sheet(&caption, &headings, &rows, (width, height)))
}

/// The picture of uint8 `[3, h, w]`.
fn rgb_of(colours: &Tensor) -> Result<RgbImage> {
    let size = colours.size();
    let bytes = Vec::<u8>::try_from(colours.permute([1, 2, 0]).contiguous().view([-1]))?;
    RgbImage::from_raw(size[2] as u32, size[1] as u32, bytes).context("colours without pixels")
}

/// The picture of `[h, w]`, from the smallest valid value, dark, to the largest, and these in words.
fn similarity_map(map: &Tensor, valid: Option<&Tensor>) -> Result<(RgbImage, String)> {
    let (height, width) = (map.size()[0] as u32, map.size()[1] as u32);
    let values = Vec::<f64>::try_from(map.to_kind(Kind::Double).reshape([-1]))?;
    let shown = match valid {
        None => vec![true; values.len()],
        Some(valid) => Vec::<bool>::try_from(valid.reshape([-1]))?,
    };
    let visible = || values.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(v, _)| *v);
    let (low, high) = (visible().fold(1.0, f64::min), visible().fold(-1.0, f64::max));
    let spread = if high > low { high - low } else { 1.0 };
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let index = (y * width + x) as usize;
        if shown[index] { ramp(1.0 - (high - values[index]) / spread) } else { Rgb([NEUTRAL; 3]) }
    });
    Ok((picture, format!("{low:.2} to {high:.2}")))
}
