//! What a file of no registered model looks like: its layers, and what network it may
//! be of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::fit::Shapes;

/// The layers of a network that is not known, as far as names and shapes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// Convolutions.
    pub convolutions: usize,
    /// Those with one input channel a filter.
    pub depthwise: usize,
    /// Matrices: linear layers, attention, embeddings.
    pub linear: usize,
    /// Batch norms.
    pub batch_norms: usize,
    /// Sides of kernels, ascending.
    pub kernels: Vec<i64>,
    /// Output channels of convolutions, ascending.
    pub widths: Vec<i64>,
    /// The convolution of the fewest input channels: its name and `[O, I, H, W]`.
    pub stem: Option<(String, Vec<i64>)>,
    /// Blocks of each stage, where stages are called `layer1`, `layer2`, ….
    pub stages: Vec<usize>,
    /// What network it seems to be of.
    pub likely: Option<String>,
}

/// Parts of names that only one kind of network has, most telling first.
const SIGNS: [(&str, &str); 24] = [
    ("relative_position_bias_table", "a Swin transformer"),
    ("grn.", "a ConvNeXt V2"),
    ("cls_token", "a vision transformer"),
    ("class_token", "a vision transformer"),
    ("patch_embed", "a vision transformer"),
    ("visual.attnpool", "CLIP's ResNet"),
    ("word_embeddings", "a language model"),
    ("denselayer", "a DenseNet"),
    ("denseblock", "a DenseNet"),
    ("fuse_layers", "an HRNet"),
    ("trunk_output", "a RegNet"),
    ("s1.b1.", "a RegNet"),
    ("Mixed_5b", "an Inception"),
    ("inception3a", "GoogLeNet"),
    ("fire2.", "a SqueezeNet"),
    ("_depthwise_conv", "an EfficientNet"),
    ("blocks.0.0.conv_dw", "an EfficientNet or MobileNet of timm"),
    ("features.1.conv.0.0.", "a MobileNet V2"),
    ("features.1.block.", "a MobileNet V3 or EfficientNet of torchvision"),
    ("bottleneckX", "a YOLO"),
    ("model.0.conv.", "a YOLO"),
    ("in_layers.", "a diffusion U-Net"),
    ("self_attn", "a transformer"),
    ("attn.", "a transformer"),
];

impl Sketch {
    /// Of tensors with these names and shapes.
    pub(super) fn of(content: &Shapes) -> Self {
        let weights = || content.iter().filter(|(name, _)| !name.ends_with("bias_table"));
        let convolutions: Vec<(&str, &[i64])> = weights()
            .filter(|(_, shape)| shape.len() == 4 && shape.iter().all(|&side| side > 0))
            .map(|(name, shape)| (*name, shape.as_slice()))
            .collect();
        let distinct = |number: fn(&[i64]) -> i64| -> Vec<i64> {
            let numbers: BTreeSet<i64> =
                convolutions.iter().map(|(_, shape)| number(shape)).collect();
            numbers.into_iter().collect()
        };
        let is_depthwise = |shape: &[i64]| shape[1] == 1 && shape[0] > 1;
        let stem = convolutions.iter().filter(|(_, shape)| !is_depthwise(shape));
        let stem = stem.min_by_key(|(name, shape)| (shape[1], name.len()));
        let mut sketch = Sketch {
            depthwise: convolutions.iter().filter(|(_, shape)| is_depthwise(shape)).count(),
            linear: weights().filter(|(_, shape)| shape.len() == 2).count(),
            batch_norms: content.keys().filter(|name| name.ends_with("running_mean")).count(),
            kernels: distinct(|shape| shape[2].max(shape[3])),
            widths: distinct(|shape| shape[0]),
            stem: stem.map(|(name, shape)| ((*name).to_owned(), shape.to_vec())),
            stages: stages(content),
            likely: None,
            convolutions: convolutions.len(),
        };
        sketch.likely = sketch.guess(content);
        sketch
    }

    fn guess(&self, content: &Shapes) -> Option<String> {
        let has = |part: &str| content.keys().any(|name| name.contains(part));
        let (_, sign) = SIGNS.iter().find(|(part, _)| has(part)).copied().unzip();
        if sign.is_some() || self.stages.is_empty() {
            let plain = || {
                let vgg = has("features.0.weight") && has("classifier.");
                vgg.then(|| "a VGG or AlexNet".to_owned())
            };
            return sign.map(str::to_owned).or_else(plain);
        }
        let blocks: usize = self.stages.iter().sum();
        let bottleneck = has(".conv3.");
        let depth = blocks * if bottleneck { 3 } else { 2 } + 2;
        let kernel = self.stem.as_ref().map_or(0, |(_, shape)| shape[2]);
        Some(if self.stages.len() < 4 && kernel == 3 {
            format!("a ResNet-{depth} for images of some 32 pixels (CIFAR)")
        } else if has("conv1.0.") || has("conv1.3.") {
            format!("a ResNet-{depth} with a stem of several convolutions (ResNet-C, -D)")
        } else if has(".se.") || has(".se_module.") {
            format!("a ResNet-{depth} with squeeze and excitation")
        } else if kernel == 3 {
            format!("a ResNet-{depth} with a stem for small images")
        } else {
            format!("a ResNet-{depth}, or one like it")
        })
    }
}

/// The blocks of `layer1`, `layer2`, … below the prefix that has the most of them.
fn stages(content: &Shapes) -> Vec<usize> {
    let mut blocks: BTreeMap<&str, BTreeMap<usize, usize>> = BTreeMap::new();
    for name in content.keys() {
        let place = || {
            let at = name.find("layer")?;
            let (stage, rest) = name[at + "layer".len()..].split_once('.')?;
            let (block, _) = rest.split_once('.')?;
            Some((&name[..at], stage.parse::<usize>().ok()?, block.parse::<usize>().ok()?))
        };
        if let Some((prefix, stage, block)) =
            place().filter(|(_, stage, block)| stage + block < 1000)
        {
            let count = blocks.entry(prefix).or_default().entry(stage).or_default();
            *count = (*count).max(block + 1);
        }
    }
    let most = blocks.into_values().max_by_key(|stages| stages.values().sum::<usize>());
    most.unwrap_or_default().into_values().collect()
}

impl fmt::Display for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[i64]| {
            const SHOWN: usize = 12;
            let shown = numbers.iter().take(SHOWN).map(i64::to_string).collect::<Vec<_>>();
            let more = if numbers.len() > SHOWN { ", …" } else { "" };
            shown.join(", ") + more
        };
        write!(f, "layers: {} convolutions", self.convolutions)?;
        if self.depthwise > 0 {
            write!(f, " ({} of them depthwise)", self.depthwise)?;
        }
        write!(f, ", {} batch norms, {} matrices", self.batch_norms, self.linear)?;
        if !self.widths.is_empty() {
            let (widths, kernels) = (list(&self.widths), list(&self.kernels));
            write!(f, "\nwidths: {widths}; kernels of {kernels}")?;
        }
        if let Some((name, shape)) = &self.stem {
            let [to, from, height, width] = shape[..] else { return Ok(()) };
            write!(f, "\nfirst: {name}, {from} channels to {to}, {height}×{width}")?;
        }
        if !self.stages.is_empty() {
            let blocks = self.stages.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            write!(f, "\nstages: {} of {blocks} blocks", self.stages.len())?;
        }
        let likely = self.likely.as_deref().unwrap_or("a network of a kind that is not known here");
        write!(f, "\nlikely: {likely}")
    }
}
