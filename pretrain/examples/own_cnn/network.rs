//! A convnet that the `backbone` crate does not know: three stages of strides
//! 4, 8 and 16, widths that follow no doubling rule, squeeze-and-excitation in
//! every block. Written with the crate's layers it runs on whole grids and on
//! visible patches alone, so it can be pretrained as it stands.

use backbone::layers::{
    Activation, BatchNorm2d, Conv2d, Conv2dConfig, DropPath, Layer, SqueezeExcite, drop_path_rates,
};
use backbone::{Backbone, FeatureMap, Mode, Stage};
use tch::nn::Path;

/// Channels and stride of every stage. Pretraining reads them from the network
/// and shapes its decoder accordingly; strides must be powers of two.
const STAGES: [Stage; 3] = [
    Stage { channels: 24, stride: 4 },
    Stage { channels: 40, stride: 8 },
    Stage { channels: 112, stride: 16 },
];
const BLOCKS_PER_STAGE: usize = 2;
const DROP_PATH_RATE: f64 = 0.1;

/// A list of layers is a layer too.
type Layers = Vec<Box<dyn Layer>>;

/// A convolution, its batch norm, and what comes after.
fn conv_norm(path: &Path, from: i64, to: i64, config: Conv2dConfig, then: Activation) -> Layers {
    vec![
        // A path's last part is the parameter's name in every weight file.
        Box::new(Conv2d::new(&(path / "conv"), from, to, config)),
        Box::new(BatchNorm2d::new(&(path / "bn"), to)),
        Box::new(then),
    ]
}

/// MobileNet's inverted residual: widen, convolve each channel, squeeze and
/// excite, narrow again.
#[derive(Debug)]
struct Block {
    branch: Vec<Layers>,
    drop_path: DropPath,
}

impl Block {
    fn new(path: &Path, channels: i64, drop_path: DropPath) -> Self {
        let wide = 3 * channels;
        let (one, five) = (Conv2dConfig::square(1), Conv2dConfig::square(5).groups(wide));
        let gate: Layers = vec![Box::new(SqueezeExcite::new(&(path / "se"), wide, channels / 4))];
        Self {
            branch: vec![
                conv_norm(&(path / "expand"), channels, wide, one, Activation::HardSwish),
                conv_norm(&(path / "depthwise"), wide, wide, five, Activation::HardSwish),
                gate,
                conv_norm(&(path / "project"), wide, channels, one, Activation::Identity),
            ],
            drop_path,
        }
    }
}

impl Layer for Block {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        let y = self.branch.iter().fold(x.clone(), |y, layer| layer.forward(&y, mode));
        // Residual sums work on every kind of map.
        self.drop_path.forward(&y, mode).add(x)
    }
}

/// The network: in each stage a strided convolution, then the blocks.
#[derive(Debug)]
pub struct OwnCnn {
    stages: Vec<(Layers, Vec<Block>)>,
}

impl OwnCnn {
    /// A randomly initialised network under `path`.
    pub fn new(path: &Path) -> Self {
        let rates = drop_path_rates(DROP_PATH_RATE, STAGES.len() * BLOCKS_PER_STAGE);
        let (mut from, mut down) = (3, 4);
        let mut stages = Vec::new();
        for (index, stage) in STAGES.iter().enumerate() {
            let path = path / "stages" / index;
            // Any kernel, stride and padding that maps n positions to n/stride.
            let config = Conv2dConfig {
                kernel: (down + 1, down + 1),
                stride: (down, down),
                padding: (down / 2, down / 2),
                ..Conv2dConfig::square(1)
            };
            let entry =
                conv_norm(&(&path / "down"), from, stage.channels, config, Activation::HardSwish);
            let block = |number: usize| {
                let row = index * BLOCKS_PER_STAGE + number;
                Block::new(&(&path / number), stage.channels, DropPath::new(rates[row], row))
            };
            stages.push((entry, (0..BLOCKS_PER_STAGE).map(block).collect()));
            (from, down) = (stage.channels, 2);
        }
        Self { stages }
    }
}

impl Backbone for OwnCnn {
    fn stages(&self) -> &[Stage] {
        &STAGES
    }

    fn in_chans(&self) -> i64 {
        3
    }

    fn drop_path_blocks(&self) -> usize {
        STAGES.len() * BLOCKS_PER_STAGE
    }

    fn forward_features(&self, x: &FeatureMap, mode: &Mode) -> Vec<FeatureMap> {
        let mut x = x.clone();
        let mut pyramid = Vec::new();
        for (entry, blocks) in &self.stages {
            x = entry.forward(&x, mode);
            x = blocks.iter().fold(x, |x, block| block.forward(&x, mode));
            pyramid.push(x.clone());
        }
        pyramid
    }
}
