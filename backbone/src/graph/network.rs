//! A graph as a [`Backbone`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tch::Tensor;

use super::analyse::Parts;
use super::lower::{Lowered, StepKind};
use super::run::{Parameters, Run};
use super::ssa::ValueId;
use crate::backbone::{check_input, check_statistics};
use crate::layers::{BatchNorm2d, BatchNormParts};
use crate::{Backbone, Error, FeatureMap, Mode, Module, NormKind, Result, Stage};

/// A network read from a file, with its variables.
#[derive(Debug)]
pub(super) struct GraphBackbone {
    parts: Arc<Parts>,
    parameters: Parameters,
}

impl GraphBackbone {
    /// The network of `parts` with these tensors by name.
    pub fn new(
        parts: Arc<Parts>,
        tensors: &HashMap<String, Tensor>,
        drop_path: Vec<f64>,
    ) -> Result<Self> {
        let network = &parts.network;
        let mut by_value: Vec<Option<Tensor>> = Vec::new();
        by_value.resize_with(network.values, || None);
        for (&id, name) in &parts.names {
            let tensor = tensors.get(name).map(Tensor::shallow_clone);
            by_value[id] = tensor;
        }
        let find = |id: ValueId| {
            by_value[id].as_ref().map(Tensor::shallow_clone).ok_or_else(|| {
                Error::Weights(format!("{:?} has no tensor in the file", parts.names.get(&id)))
            })
        };
        let mut norms = Vec::with_capacity(network.norms.len());
        for norm in &network.norms {
            let affine = match (norm.weight, norm.bias) {
                (Some(weight), Some(bias)) => Some([find(weight)?, find(bias)?]),
                _ => None,
            };
            let counter = parts.names.get(&norm.mean).and_then(|name| {
                tensors.get(&format!("{}.num_batches_tracked", name.rsplit_once('.')?.0))
            });
            norms.push(BatchNorm2d::by(BatchNormParts {
                affine,
                running: [find(norm.mean)?, find(norm.var)?],
                num_batches_tracked: counter.map(Tensor::shallow_clone),
                momentum: norm.momentum,
                eps: norm.eps,
            }));
        }
        let parameters = Parameters { tensors: by_value, norms, drop_path };
        Ok(Self { parts, parameters })
    }

    fn network(&self) -> &Lowered {
        &self.parts.network
    }

    /// The modules of one step, by its weight's name.
    fn module(&self, kind: &StepKind) -> Option<(String, Module)> {
        let named = |id: &ValueId| {
            let name = self.parts.names.get(id)?;
            let module = name.strip_suffix(".weight")?.to_owned();
            Some((module, self.parameters.tensors[*id].as_ref()?))
        };
        match kind {
            StepKind::Convolution(conv) => {
                let (name, weight) = named(&conv.weight)?;
                let size = weight.size();
                let padding = conv.sliding.padding;
                let module = Module::Conv2d {
                    in_channels: size[1] * conv.groups,
                    out_channels: size[0],
                    kernel_size: conv.sliding.kernel,
                    stride: conv.sliding.stride,
                    padding,
                    dilation: conv.sliding.dilation,
                    groups: conv.groups,
                    bias: conv.bias.is_some(),
                };
                Some((name, module))
            }
            StepKind::BatchNorm { norm, .. } => {
                let weight = self.network().norms[*norm].weight?;
                Some((named(&weight)?.0, self.parameters.norms[*norm].module()))
            }
            StepKind::LayerNorm { weight, eps, .. } => {
                let (name, weight) = named(weight)?;
                Some((name, Module::LayerNorm { normalized_shape: weight.size()[0], eps: *eps }))
            }
            StepKind::Linear { weight, bias: Some(_), .. } => {
                let (name, weight) = named(weight)?;
                let [out_features, in_features] = weight.size()[..] else { return None };
                Some((name, Module::Linear { in_features, out_features }))
            }
            _ => None,
        }
    }
}

impl Backbone for GraphBackbone {
    fn stages(&self) -> &[Stage] {
        &self.parts.stages
    }

    fn in_chans(&self) -> i64 {
        self.parts.in_chans
    }

    fn norm(&self) -> NormKind {
        if self.network().norms.is_empty() { NormKind::Layer } else { NormKind::Batch }
    }

    fn has_batch_norms(&self) -> bool {
        self.network().norms.iter().any(|norm| !norm.frozen)
    }

    fn drop_path_blocks(&self) -> usize {
        let drops = self.network().drop_path.len() + self.network().dropouts;
        let dropped = self.parameters.drop_path.iter().any(|rate| *rate > 0.0);
        if dropped || self.network().dropouts > 0 { drops } else { 0 }
    }

    fn stage_index(&self, name: &str) -> Option<usize> {
        self.parts.stages_of_names.get(name).copied()
    }

    fn layer_index(&self, name: &str) -> Option<usize> {
        self.parts.layers.get(name).copied()
    }

    fn is_used(&self, name: &str, stages: usize) -> bool {
        self.stage_index(name).is_some_and(|index| index <= stages)
    }

    fn modules(&self) -> Vec<(String, Module)> {
        let mut seen = HashSet::new();
        let modules = self.network().steps.iter().filter_map(|step| self.module(&step.kind));
        modules.filter(|(name, _)| seen.insert(name.clone())).collect()
    }

    fn total_stride(&self) -> i64 {
        self.parts.total_stride
    }

    fn forward_features(&self, x: &FeatureMap, mode: &Mode) -> Vec<FeatureMap> {
        self.run(x, mode).unwrap_or_else(|error| panic!("{error}"))
    }

    fn forward(&self, x: &FeatureMap, mode: &Mode) -> Result<Vec<FeatureMap>> {
        check_input(x, self.in_chans(), self.total_stride())?;
        if let (Some(_), Some(refusal)) = (x.mask(), &self.parts.refusal) {
            let rule = format!("the network runs on whole grids alone: {refusal}");
            return Err(Error::invalid("the input", "masked", rule));
        }
        if self.has_batch_norms() {
            check_statistics(self, x, mode)?;
        }
        self.run(x, mode)
    }
}

impl GraphBackbone {
    /// What the graph returns, if the network was lowered as far as that.
    pub fn returned(&self, x: &FeatureMap, mode: &Mode) -> Result<Vec<Tensor>> {
        check_input(x, self.in_chans(), 1)?;
        let frozen = mode.frozen();
        let run = Run::new(self.network(), &self.parameters, x, [mode, &frozen])?;
        run.heads(|node| self.parts.describe_node(node))
    }

    fn run(&self, x: &FeatureMap, mode: &Mode) -> Result<Vec<FeatureMap>> {
        let frozen = mode.frozen();
        let run = Run::new(self.network(), &self.parameters, x, [mode, &frozen])?;
        run.stages(|node| self.parts.describe_node(node))
    }
}
