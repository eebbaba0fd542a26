//! What the networks of the registry have in common: four stages of residual blocks.

use std::fmt::Debug;

use crate::layers::Layer;
use crate::{Backbone, FeatureMap, Mode, Module, NormKind, Stage};

/// The blocks of a network's stages, and what is told of these.
#[derive(Debug)]
pub struct Body<B> {
    blocks: Vec<Vec<B>>,
    stages: [Stage; 4],
    in_chans: i64,
}

impl<B> Body<B> {
    /// Stages of strides 4 to 32 with so many channels, of a network for `in_chans`.
    pub fn new(blocks: Vec<Vec<B>>, channels: [i64; 4], in_chans: i64) -> Self {
        let stage = |index: usize| Stage { channels: channels[index], stride: 4 << index };
        Self { blocks, stages: [0, 1, 2, 3].map(stage), in_chans }
    }
}

/// A network of stages of blocks; it is a [`Backbone`].
pub trait Staged: Debug {
    /// The residual block.
    type Block: Layer;

    /// The norm of every stage.
    const NORM: NormKind;

    /// The stages.
    fn body(&self) -> &Body<Self::Block>;

    /// [`Backbone::stage_index`].
    fn stage_index(&self, name: &str) -> Option<usize>;

    /// Whether any map depends on the parameter or buffer `name`.
    fn is_used(&self, _name: &str) -> bool {
        true
    }

    /// The layers with parameters that are in no block, by name.
    fn outer_modules(&self) -> Vec<(String, Module)>;

    /// Those of the block `index` of `stage`, both from 0.
    fn block_modules(block: &Self::Block, stage: usize, index: usize) -> Vec<(String, Module)>;

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
        self.body().blocks.iter().map(Vec::len).sum()
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
                modules.extend(N::block_modules(block, stage, index));
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
