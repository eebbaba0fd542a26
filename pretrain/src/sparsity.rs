//! What becomes of a mask inside a network: dense convolution lets the visible
//! patches leak into the masked ones until the pattern is gone, sparse
//! execution keeps it (paper, figure 2 and section 3.1).
//!
//! A position is *active* if it depends on the visible pixels. That is found
//! out by running the network itself, on the masked image and on a black one,
//! and comparing: where any channel differs, information has arrived. Unlike
//! counting non-zero values this holds for any network, whatever its biases
//! and norms make of an empty neighbourhood.

use std::rc::Rc;

use backbone::layers::{Conv2d, Conv2dConfig, Layer};
use backbone::{Backbone, Error, FeatureMap, Init, Mode, PatchMask, Result, Size};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

/// Convolutions of [`of_architecture`]'s plain stack.
const STACK: usize = 8;

/// Which positions of one map are active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionMap {
    cols: usize,
    /// Row by row.
    active: Vec<bool>,
}

/// One layer of a network, executed in both ways.
#[derive(Debug, Clone)]
pub struct LayerReach {
    /// What the layer is called.
    pub name: String,
    /// Active after plain convolution of the image whose masked pixels are
    /// zero.
    pub dense: PositionMap,
    /// Active after execution on the visible patches alone.
    pub sparse: PositionMap,
}

/// What a mask becomes in one network.
#[derive(Debug, Clone)]
pub struct MaskLeakage {
    /// What the network is called.
    pub title: String,
    /// Patches (rows, columns) of the image.
    pub patches: (u32, u32),
    /// The input, then each layer in order.
    pub layers: Vec<LayerReach>,
}

impl PositionMap {
    /// From bool `[1, 1, h, w]`.
    fn new(active: &Tensor) -> Result<Self> {
        let cols = active.size()[3] as usize;
        let active = Vec::<bool>::try_from(active.to_device(Device::Cpu).reshape([-1]))?;
        Ok(Self { cols, active })
    }

    /// Rows and columns.
    pub fn size(&self) -> (u32, u32) {
        ((self.active.len() / self.cols) as u32, self.cols as u32)
    }

    /// Whether the position is active.
    ///
    /// # Panics
    /// The position lies outside the map.
    pub fn is_active(&self, row: u32, col: u32) -> bool {
        assert!((col as usize) < self.cols, "column {col} of {}", self.cols);
        self.active[row as usize * self.cols + col as usize]
    }

    /// Active positions among all, 0 to 1.
    pub fn share(&self) -> f64 {
        self.active.iter().filter(|active| **active).count() as f64 / self.active.len() as f64
    }
}

/// The reach of an architecture on images of `size` pixels: of its stages, and
/// before that of eight plain 3×3 convolutions on its finest map, since a
/// single stage of a deep network already has many layers.
///
/// The network is built with fresh weights, in which no branch is closed: as
/// networks start, the last norm of a residual block is zero and ConvNeXt's
/// layer scale nearly so, which would hide what the branches let through.
///
/// # Errors
/// The network cannot be built, or the mask does not fit (see [`of_backbone`]).
pub fn of_architecture(
    name: &str,
    size: Size,
    mask: &Rc<PatchMask>,
    build: impl FnOnce(&Path) -> Result<Box<dyn Backbone>>,
) -> Result<[MaskLeakage; 2]> {
    let store = VarStore::new(mask.device());
    let backbone = build(&store.root())?;
    open_branches(&store);
    let image = probe(backbone.in_chans(), size, mask.device());
    let stages = of_backbone(name, backbone.as_ref(), &image, mask)?;
    let finest = backbone.stages().first().map_or(1, |stage| stage.stride);
    let (rows, cols) = mask.patches();
    let patch = (size.0 / rows / finest, size.1 / cols / finest);
    Ok([of_convolutions(STACK, patch, mask)?, stages])
}

/// The reach of a network's stages, with the weights it has.
///
/// `image` is `[1, C, H, W]`, on the weights' device and of their type;
/// preferably no visible pixel is exactly zero in all channels, since such a
/// pixel carries nothing that could arrive anywhere.
///
/// # Errors
/// The image does not fit the network or the mask, is not alone, or makes the
/// network's features overflow.
pub fn of_backbone(
    name: &str,
    backbone: &dyn Backbone,
    image: &Tensor,
    mask: &Rc<PatchMask>,
) -> Result<MaskLeakage> {
    check_single(mask)?;
    let _no_grad = tch::no_grad_guard();
    let black = image.zeros_like();
    let masked = FeatureMap::masked(image, mask)?.to_grid();
    let run = |input: &FeatureMap| backbone.forward(input, &Mode::eval());
    let dense = differing(
        &run(&FeatureMap::Grid(masked.shallow_clone()))?,
        &run(&FeatureMap::Grid(black.shallow_clone()))?,
    )?;
    let sparse = differing(
        &run(&FeatureMap::patches(&masked, mask)?)?,
        &run(&FeatureMap::patches(&black, mask)?)?,
    )?;
    let finest = backbone.stages().first().map_or(1, |stage| stage.stride);
    let (rows, cols) = mask.patches();
    let size = image.size();
    let mut layers = vec![input(mask, (size[2] / rows / finest, size[3] / cols / finest))?];
    for (index, (stage, (dense, sparse))) in
        backbone.stages().iter().zip(dense.into_iter().zip(sparse)).enumerate()
    {
        let name = format!("stage {} (1/{})", index + 1, stage.stride);
        layers.push(LayerReach { name, dense, sparse });
    }
    Ok(reach(format!("{name} on {}×{} pixels", size[2], size[3]), mask, layers))
}

/// The reach of `count` plain 3×3 convolutions, one after another, on a map
/// where a patch measures `patch` positions.
///
/// # Errors
/// The mask is of more than one image.
pub fn of_convolutions(count: usize, patch: Size, mask: &Rc<PatchMask>) -> Result<MaskLeakage> {
    check_single(mask)?;
    let _no_grad = tch::no_grad_guard();
    let store = VarStore::new(mask.device());
    // Averages of what is visible: positive wherever anything is, and zero
    // elsewhere, so that nothing needs to be compared with a black image.
    let config = Conv2dConfig::square(3).init(Init::Constant(1.0 / 9.0));
    let visible = mask.active(patch).to_kind(Kind::Float);
    let mut dense = FeatureMap::Grid(visible.shallow_clone());
    let mut sparse = FeatureMap::patches(&visible, mask)?;
    let mut layers = vec![input(mask, patch)?];
    for number in 1..=count {
        let convolution = Conv2d::new(&(store.root() / number), 1, 1, config);
        dense = convolution.forward(&dense, &Mode::eval());
        sparse = convolution.forward(&sparse, &Mode::eval());
        layers.push(LayerReach {
            name: format!("layer {number}"),
            dense: PositionMap::new(&dense.to_grid().ne(0.0))?,
            sparse: PositionMap::new(&sparse.to_grid().ne(0.0))?,
        });
    }
    let (rows, cols) = mask.patches();
    let title = format!("3×3 convolutions on {}×{} positions", rows * patch.0, cols * patch.1);
    Ok(reach(title, mask, layers))
}

/// Sets every scale (a parameter of one dimension that is no bias: the weights
/// of norms, ConvNeXt's `gamma`) to one, so that each branch contributes.
pub fn open_branches(store: &VarStore) {
    let _no_grad = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        // Running statistics are no parameters.
        if variable.requires_grad() && variable.dim() == 1 && !name.ends_with("bias") {
            let _ = variable.fill_(1.0);
        }
    }
}

/// An image `[1, in_chans, H, W]` in float32 no pixel of which is zero or
/// equals its neighbours.
pub fn probe(in_chans: i64, (height, width): Size, device: Device) -> Tensor {
    let index = Tensor::arange(in_chans * height * width, (Kind::Double, device));
    // Neighbours are 12.9898 radians apart: far from any period's fraction.
    ((index * 12.9898).sin() * 0.5 + 1.0).to_kind(Kind::Float).view([1, in_chans, height, width])
}

fn check_single(mask: &PatchMask) -> Result<()> {
    if mask.batch() == 1 {
        return Ok(());
    }
    let rule = "the reach of a mask is shown for one image at a time";
    Err(Error::invalid("the mask's batch", mask.batch(), rule))
}

fn input(mask: &PatchMask, patch: Size) -> Result<LayerReach> {
    let map = PositionMap::new(&mask.active((patch.0.max(1), patch.1.max(1))))?;
    Ok(LayerReach { name: "input".to_owned(), dense: map.clone(), sparse: map })
}

fn reach(title: String, mask: &PatchMask, layers: Vec<LayerReach>) -> MaskLeakage {
    let (rows, cols) = mask.patches();
    MaskLeakage { title, patches: (rows as u32, cols as u32), layers }
}

/// Where any channel differs, level by level.
fn differing(features: &[FeatureMap], black: &[FeatureMap]) -> Result<Vec<PositionMap>> {
    let level = |(index, (feature, black)): (usize, (&FeatureMap, &FeatureMap))| {
        let (feature, black) = (feature.to_grid(), black.to_grid());
        if feature.isfinite().all().int64_value(&[]) == 0 {
            let rule = "they must be finite to show what they depend on";
            return Err(Error::invalid(
                format!("features of stage {}", index + 1),
                "not finite",
                rule,
            ));
        }
        PositionMap::new(&feature.ne_tensor(&black).any_dim(1, true))
    };
    features.iter().zip(black).enumerate().map(level).collect()
}

#[cfg(test)]
mod tests {
    use backbone::models;

    use super::*;

    fn mask(rows: i64, cols: i64, visible: &[i64]) -> Rc<PatchMask> {
        PatchMask::from_visible(1, (rows, cols), visible, Device::Cpu).unwrap()
    }

    fn architecture(name: &str, size: Size, mask: &Rc<PatchMask>) -> Result<[MaskLeakage; 2]> {
        of_architecture(name, size, mask, |path| {
            models::find(name)?.build(path, &models::BuildOptions::default())
        })
    }

    fn resnet18() -> (VarStore, Box<dyn Backbone>) {
        let store = VarStore::new(Device::Cpu);
        let model = models::find("resnet18").unwrap();
        let backbone = model.build(&store.root(), &models::BuildOptions::default()).unwrap();
        (store, backbone)
    }

    fn shares(reach: &MaskLeakage) -> Vec<f64> {
        reach.layers.iter().map(|layer| layer.dense.share()).collect()
    }

    #[test]
    fn each_plain_convolution_grows_a_patch_by_one_position() {
        let reach = of_convolutions(5, (4, 4), &mask(3, 3, &[4])).unwrap();
        for (layer, number) in reach.layers.iter().zip(0u32..) {
            let side = (4 + 2 * number).min(12);
            assert_eq!(layer.dense.share(), f64::from(side * side) / 144.0, "{}", layer.name);
            assert_eq!(layer.sparse, reach.layers[0].sparse, "{}", layer.name);
        }
        assert_eq!(reach.layers[0].dense.share(), 1.0 / 9.0);
        assert_eq!(reach.layers[5].dense.share(), 1.0);
        assert!(reach.layers[1].dense.is_active(3, 3) && !reach.layers[1].dense.is_active(2, 3));
    }

    #[test]
    fn dense_stages_fill_up_and_sparse_ones_keep_the_mask() {
        // Not square, and one corner far from the three visible patches of 12.
        let mask = mask(3, 4, &[0, 1, 4]);
        for name in ["resnet18", "resnet50", "convnext_tiny"] {
            let [stack, stages] = architecture(name, (96, 128), &mask).unwrap();
            assert_eq!((stack.layers.len(), stages.layers.len()), (9, 5));
            for reach in [&stack, &stages] {
                let dense = shares(reach);
                assert_eq!(dense[0], 0.25);
                assert!(dense.windows(2).all(|pair| pair[0] <= pair[1]), "{name}: {dense:?}");
                assert!(dense[1] > 0.25, "{name}: {dense:?}");
                for layer in &reach.layers {
                    assert_eq!(layer.sparse.share(), 0.25, "{name} {}", layer.name);
                    let (rows, cols) = layer.sparse.size();
                    let wide = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
                    for (row, col) in wide {
                        let patch = (row * 3 / rows) * 4 + col * 4 / cols;
                        let visible = [0, 1, 4].contains(&patch);
                        assert_eq!(layer.sparse.is_active(row, col), visible, "{name} {row} {col}");
                    }
                }
            }
            assert_eq!(shares(&stages)[4], 1.0, "{name}");
            assert!(shares(&stages)[1] < 1.0, "{name}");
        }
    }

    /// Norms shift empty positions away from zero; that must not count.
    #[test]
    fn biases_do_not_make_a_position_active() {
        let mask = mask(4, 4, &[0]);
        let (store, backbone) = resnet18();
        open_branches(&store);
        let image = probe(3, (128, 128), Device::Cpu);
        let reach = || shares(&of_backbone("resnet18", backbone.as_ref(), &image, &mask).unwrap());
        let plain = reach();
        let variables = store.variables();
        tch::no_grad(|| {
            let _ = variables["layer1.0.bn1.bias"].shallow_clone().fill_(0.3);
            let _ = variables["layer2.1.bn2.bias"].shallow_clone().fill_(0.2);
        });
        assert_eq!(reach(), plain);
        assert!(plain[1] < 0.2, "{plain:?}");
    }

    #[test]
    fn fresh_weights_close_branches_that_opening_opens() {
        let mask = mask(4, 4, &[0]);
        let (store, backbone) = resnet18();
        let image = probe(3, (128, 128), Device::Cpu);
        let reach = || shares(&of_backbone("resnet18", backbone.as_ref(), &image, &mask).unwrap());
        let closed = reach();
        open_branches(&store);
        let open = reach();
        assert!(closed[4] < 0.5 && open[4] == 1.0, "{closed:?} {open:?}");
    }

    #[test]
    fn misfits_are_refused() {
        let two = PatchMask::all_visible(2, (2, 2), Device::Cpu).unwrap();
        let message = of_convolutions(1, (2, 2), &two).unwrap_err().to_string();
        assert!(message.starts_with("the mask's batch is 2, but"), "{message}");
        let message = architecture("resnet18", (64, 64), &two).unwrap_err().to_string();
        assert!(message.starts_with("the mask's batch is 2, but"), "{message}");
        let one = mask(2, 2, &[0]);
        let message = architecture("resnet18", (64, 48), &one).unwrap_err().to_string();
        assert!(message.starts_with("masked input is 64×48 pixels, but"), "{message}");
        let message = architecture("resnet18", (64, 63), &one).unwrap_err().to_string();
        // 63 columns are no two equal patches.
        assert!(message.starts_with("input is [1, 3, 64, 63], but"), "{message}");

        let (_store, backbone) = resnet18();
        let image = probe(3, (64, 64), Device::Cpu) * f64::NAN;
        let error = of_backbone("resnet18", backbone.as_ref(), &image, &one).unwrap_err();
        assert!(error.to_string().starts_with("features of stage 1 is not finite"), "{error}");
    }
}
