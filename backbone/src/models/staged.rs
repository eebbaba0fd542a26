//! What the networks of the registry have in common: four stages of residual blocks.

use std::fmt::Debug;

use super::BuildOptions;
use crate::layers::{DropPath, Layer, drop_path_rates};
use crate::{Backbone, FeatureMap, Mode, Module, NormKind, Stage};

/// A residual block.
pub trait Block: Layer {
    /// The layers with parameters of the block called `name`.
    fn modules(&self, name: &str) -> Vec<(String, Module)>;
}

/// The blocks of a network's stages, and what is told of these.
#[derive(Debug)]
pub struct Body {
    blocks: [Vec<Box<dyn Block>>; 4],
    stages: [Stage; 4],
    in_chans: i64,
    drops_paths: bool,
}

impl Body {
    /// Stages of strides 4 to 32 with so many channels. Each of `plans` becomes the block that
    /// `build` makes of it, with the stage, from 0, that it is in.
    pub fn new<P, B: Block + 'static>(
        plans: Vec<P>,
        channels: [i64; 4],
        options: &BuildOptions,
        mut build: impl FnMut(P, DropPath) -> (usize, B),
    ) -> Self {
        let rates = drop_path_rates(options.drop_path_rate, plans.len());
        let mut blocks: [Vec<Box<dyn Block>>; 4] = Default::default();
        for ((number, plan), rate) in plans.into_iter().enumerate().zip(rates) {
            let (stage, block) = build(plan, DropPath::new(rate, number));
            blocks[stage].push(Box::new(block));
        }
        let stage = |index: usize| Stage { channels: channels[index], stride: 4 << index };
        let drops_paths = options.drop_path_rate > 0.0;
        Self { blocks, stages: [0, 1, 2, 3].map(stage), in_chans: options.in_chans, drops_paths }
    }
}

/// A network of stages of blocks; it is a [`Backbone`].
pub trait Staged: Debug {
    /// The norm of every stage.
    const NORM: NormKind = NormKind::Batch;

    /// The stages.
    fn body(&self) -> &Body;

    /// [`Backbone::stage_index`].
    fn stage_index(&self, name: &str) -> Option<usize>;

    /// Whether any map depends on the parameter or buffer `name`.
    fn is_used(&self, _name: &str) -> bool {
        true
    }

    /// The layers with parameters that are in no block, by name.
    fn outer_modules(&self) -> Vec<(String, Module)>;

    /// What the block `index` of `stage`, both from 0, is called.
    fn block_name(stage: usize, index: usize) -> String;

    /// What stands before the first stage, where that is frozen apart from it.
    fn stem(&self, x: &FeatureMap, _mode: &Mode) -> FeatureMap {
        x.clone()
    }

    /// What stands before the blocks of `stage` and is frozen with them.
    fn enter(&self, _stage: usize, x: FeatureMap, _mode: &Mode) -> FeatureMap {
        x
    }
}

impl<N: Staged> Backbone for N {
    fn stages(&self) -> &[Stage] {
        &self.body().stages
    }

    fn in_chans(&self) -> i64 {
        self.body().in_chans
    }

    fn norm(&self) -> NormKind {
        N::NORM
    }

    fn has_batch_norms(&self) -> bool {
        N::NORM == NormKind::Batch
    }

    fn drop_path_blocks(&self) -> usize {
        let Body { blocks, drops_paths, .. } = self.body();
        if *drops_paths { blocks.iter().map(Vec::len).sum() } else { 0 }
    }

    fn stage_index(&self, name: &str) -> Option<usize> {
        Staged::stage_index(self, name)
    }

    fn is_used(&self, name: &str, stages: usize) -> bool {
        let computed = Staged::stage_index(self, name).is_none_or(|index| index <= stages);
        computed && Staged::is_used(self, name)
    }

    fn modules(&self) -> Vec<(String, Module)> {
        let mut modules = self.outer_modules();
        for (stage, blocks) in self.body().blocks.iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                modules.extend(block.modules(&N::block_name(stage, index)));
            }
        }
        modules
    }

    fn forward_features(&self, x: &FeatureMap, mode: &Mode) -> Vec<FeatureMap> {
        let frozen = mode.frozen();
        let mut x = self.stem(x, mode.for_stage(0, &frozen));
        let mut features = Vec::with_capacity(4);
        for (stage, blocks) in self.body().blocks.iter().enumerate().take(mode.stages) {
            let mode = mode.for_stage(stage + 1, &frozen);
            x = self.enter(stage, x, mode);
            x = blocks.iter().fold(x, |x, block| block.forward(&x, mode));
            features.push(x.clone());
        }
        features
    }
}
