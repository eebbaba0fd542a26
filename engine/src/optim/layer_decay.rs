//! Layer-wise learning rates: the deeper below the head a parameter lies, the
//! smaller its share of the learning rate (arXiv 2003.10555, for convnets as in
//! ConvNeXt's and SparK's fine-tuning).

use std::collections::BTreeMap;

use backbone::Backbone;
use tch::Tensor;

use super::{ParamGroup, no_decay};

/// Layers at most, as many as a ConvNeXt-B has, of a network that tells its own: decays are made for
/// about so many.
const MOST_TOLD: usize = 13;

/// How many blocks of the two middle stages share a layer; stem, first and last
/// stage are one layer each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerGrouping {
    /// Blocks of the second stage.
    pub second: usize,
    /// Blocks of the third, long stage.
    pub third: usize,
}

impl LayerGrouping {
    /// The second stage one layer, three blocks of the third: every ConvNeXt's
    /// recipe, and a ResNet-50's in detection.
    pub const CONVNEXT: Self = Self { second: usize::MAX, third: 3 };

    /// Of the official fine-tuning of a ResNet whose third stage has so many
    /// blocks: (2, 3) up to ResNet-101's 23, (4, 4) for the 36 of 152 and 200.
    pub fn of_resnet(third_stage: usize) -> Self {
        match third_stage {
            0..=23 => Self { second: 2, third: 3 },
            _ => Self { second: 4, third: 4 },
        }
    }
}

/// Where a parameter stands: its stage and its block in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPosition {
    /// 0 the stem, 1 the first stage, …; `None` behind the backbone.
    pub stage_index: Option<usize>,
    /// From 0; only the second and third stage's matter.
    pub block: usize,
    /// The layer itself, 0 the nearest to the image, where the network says
    /// ([`Backbone::layer_index`](backbone::Backbone::layer_index)).
    pub layer: Option<usize>,
}

impl LayerPosition {
    /// The position of the backbone's parameter `name`, the block being the last
    /// of the numbers that stand together first in it: `layer3.5.conv1.weight`,
    /// `stages.2.5.gamma`; or `s3.b6.conv1.conv.weight`, which counts from 1.
    pub fn of(name: &str, stage_index: Option<usize>) -> Self {
        let number = |word: &str| match word.strip_prefix('b') {
            Some(from_one) => from_one.parse::<usize>().ok()?.checked_sub(1),
            None => word.parse().ok(),
        };
        let words = name.split('.').skip_while(|word| number(word).is_none());
        let block = words.map_while(number).last().unwrap_or(0);
        Self { stage_index, block, layer: None }
    }

    /// The position of the parameter `name` of `backbone`; what it does not know stands behind it.
    pub fn in_backbone(backbone: &dyn Backbone, name: &str) -> Self {
        let layer = backbone.layer_index(name);
        Self { layer, ..Self::of(name, backbone.stage_index(name)) }
    }
}

/// The layer of every position, and the layer of the last stage: the stem is 0, the
/// first stage 1, then a layer for every group of blocks of the second and the third,
/// the fourth is the last (12 in ConvNeXt-B), and what stands behind the
/// backbone is one above that. Of a network that tells its layers neighbours are one where it has
/// too many.
pub fn layer_ids(positions: &[LayerPosition], grouping: LayerGrouping) -> (Vec<usize>, usize) {
    if let Some(last) = positions.iter().filter_map(|position| position.layer).max() {
        let count = (last + 1).min(MOST_TOLD);
        let id =
            |position: &LayerPosition| position.layer.map_or(count, |l| l * count / (last + 1));
        return (positions.iter().map(id).collect(), count - 1);
    }
    let layers = |stage: usize, group: usize| {
        let blocks = positions.iter().filter(|position| position.stage_index == Some(stage));
        blocks.map(|position| position.block + 1).max().unwrap_or(1).div_ceil(group)
    };
    // The first layers of the second and third stage, and that of the fourth.
    let second = 2;
    let third = second + layers(2, grouping.second);
    let last = third + layers(3, grouping.third);
    let id = |position: &LayerPosition| match position.stage_index {
        Some(stage @ 0..=1) => stage,
        Some(2) => second + position.block / grouping.second,
        Some(3) => third + position.block / grouping.third,
        Some(_) => last,
        None => last + 1,
    };
    (positions.iter().map(id).collect(), last)
}

/// Groups of parameters whose learning rate is `decay` to the power of the
/// number of layers above theirs; `decays` says which have weight decay. In
/// the order given within a group, groups from the first layer up.
pub fn layered_param_groups(
    params: Vec<(String, Tensor, LayerPosition)>,
    grouping: LayerGrouping,
    decay: f64,
    decays: impl Fn(&str, &[i64]) -> bool,
) -> Vec<ParamGroup> {
    let positions: Vec<LayerPosition> = params.iter().map(|(_, _, position)| *position).collect();
    let (ids, last) = layer_ids(&positions, grouping);
    let mut groups: BTreeMap<(usize, bool), Vec<(String, Tensor)>> = BTreeMap::new();
    for ((name, tensor, _), id) in params.into_iter().zip(ids) {
        let decayed = decays(&name, &tensor.size());
        groups.entry((id, decayed)).or_default().push((name, tensor));
    }
    groups
        .into_iter()
        .map(|((id, decayed), params)| ParamGroup {
            params,
            lr_scale: decay.powi((last + 1 - id) as i32),
            weight_decay_scale: f64::from(u8::from(decayed)),
        })
        .collect()
}

/// The usual rule of [`layered_param_groups`]: weight decay for all but what [`no_decay`] names.
pub fn has_weight_decay(name: &str, shape: &[i64]) -> bool {
    !no_decay(name, shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Holds each parameter, of the stage, to its layer.
    fn check(layers: &[(&str, Option<usize>, usize)], last: usize) {
        let positions = layers.iter().map(|(name, stage, _)| LayerPosition::of(name, *stage));
        let found = layer_ids(&positions.collect::<Vec<_>>(), LayerGrouping::CONVNEXT);
        assert_eq!(found, (layers.iter().map(|(.., layer)| *layer).collect(), last));
    }

    /// Layers as in the official recipes.
    #[test]
    fn layers_are_counted_from_the_stem() {
        let resnet50 = [
            ("conv1.weight", Some(0), 0),
            ("layer1.2.conv1.weight", Some(1), 1),
            ("layer2.3.bn1.bias", Some(2), 2),
            ("layer3.0.downsample.0.weight", Some(3), 3),
            ("layer3.2.conv1.weight", Some(3), 3),
            ("layer3.3.conv1.weight", Some(3), 4),
            ("layer3.5.conv1.weight", Some(3), 4),
            ("layer4.1.conv1.weight", Some(4), 5),
            ("fpn_lateral2.weight", None, 6),
        ];
        check(&resnet50, 5);
        let convnext_base = [
            ("downsample_layers.0.0.weight", Some(0), 0),
            ("stages.0.2.gamma", Some(1), 1),
            ("downsample_layers.1.1.weight", Some(2), 2),
            ("stages.1.0.dwconv.weight", Some(2), 2),
            ("downsample_layers.2.1.weight", Some(3), 3),
            ("stages.2.2.dwconv.weight", Some(3), 3),
            ("stages.2.3.dwconv.weight", Some(3), 4),
            ("stages.2.26.norm.weight", Some(3), 11),
            ("downsample_layers.3.0.weight", Some(4), 12),
            ("stages.3.2.gamma", Some(4), 12),
            ("norm0.weight", None, 13),
        ];
        check(&convnext_base, 12);
        // A RegNet's blocks count from 1.
        let regnet = [
            ("stem.conv.weight", Some(0), 0),
            ("s1.b2.conv1.conv.weight", Some(1), 1),
            ("s3.b1.downsample.bn.weight", Some(3), 3),
            ("s3.b3.se.fc1.weight", Some(3), 3),
            ("s3.b4.conv2.conv.weight", Some(3), 4),
        ];
        check(&regnet, 5);
    }

    /// Whatever the names say.
    #[test]
    fn a_network_may_tell_its_layers() {
        let position = |name: &str, layer| LayerPosition { layer, ..LayerPosition::of(name, None) };
        let positions =
            [("stem", Some(0)), ("layer3.7", Some(4)), ("layer1.2", Some(2)), ("head", None)];
        let positions = positions.map(|(name, layer)| position(name, layer));
        let found = layer_ids(&positions, LayerGrouping::CONVNEXT);
        assert_eq!(found, (vec![0, 4, 2, 5], 4));
        let many = [0, 1, 2, 25].map(|layer| position("block", Some(layer)));
        let found = layer_ids(&many, LayerGrouping::CONVNEXT);
        assert_eq!(found, (vec![0, 0, 1, 12], 12));
    }

    #[test]
    fn groups_have_the_powers_of_the_decay() {
        let params = [
            ("conv1.weight", Some(0), vec![2, 2]),
            ("layer3.5.conv1.weight", Some(3), vec![2, 2]),
            ("layer4.0.bn1.weight", Some(4), vec![2]),
            ("head.weight", None, vec![2, 2]),
            ("head.bias", None, vec![2]),
        ]
        .map(|(name, stage, shape)| {
            let tensor = Tensor::zeros(&shape, (Kind::Float, Device::Cpu));
            (name.to_owned(), tensor, LayerPosition::of(name, stage))
        });
        let groups = layered_param_groups(
            params.into_iter().collect(),
            LayerGrouping::CONVNEXT,
            0.5,
            has_weight_decay,
        );
        let found: Vec<(&str, f64, f64)> = groups
            .iter()
            .map(|group| (group.params[0].0.as_str(), group.lr_scale, group.weight_decay_scale))
            .collect();
        let expected = [
            ("conv1.weight", 0.5f64.powi(6), 1.0),
            ("layer3.5.conv1.weight", 0.25, 1.0),
            ("layer4.0.bn1.weight", 0.5, 0.0),
            ("head.bias", 1.0, 0.0),
            ("head.weight", 1.0, 1.0),
        ];
        assert_eq!(found, expected);
    }
}
