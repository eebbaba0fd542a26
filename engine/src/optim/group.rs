//! Parameter groups, and the rule that says which parameters decay.

use tch::Tensor;

/// Parameters that share their learning rate and weight decay.
#[derive(Debug)]
pub struct ParamGroup {
    /// Leaf tensors with their checkpoint names.
    pub params: Vec<(String, Tensor)>,
    /// Multiplies the step's learning rate.
    pub lr_scale: f64,
    /// Multiplies the step's weight decay; 0 switches it off.
    pub weight_decay_scale: f64,
}

/// Whether weight decay leaves this parameter alone: tensors of one dimension
/// (biases, norm weights), names ending in `.bias`, and names with `gamma`
/// (layer scale) or `mask_token`.
pub fn no_decay(name: &str, shape: &[i64]) -> bool {
    shape.len() <= 1
        || name.ends_with(".bias")
        || name.contains("gamma")
        || name.contains("mask_token")
}

/// Splits parameters by [`no_decay`] into a group that decays and one that
/// does not, in the order given; a group without members is left out.
pub fn param_groups(params: impl IntoIterator<Item = (String, Tensor)>) -> Vec<ParamGroup> {
    let (still, decayed): (Vec<_>, Vec<_>) =
        params.into_iter().partition(|(name, tensor)| no_decay(name, &tensor.size()));
    [(decayed, 1.0), (still, 0.0)]
        .into_iter()
        .filter(|(params, _)| !params.is_empty())
        .map(|(params, weight_decay_scale)| ParamGroup {
            params,
            lr_scale: 1.0,
            weight_decay_scale,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn biases_norms_layer_scale_and_mask_tokens_do_not_decay() {
        assert!(no_decay("layer1.0.bn1.weight", &[64]));
        assert!(no_decay("conv.bias", &[1, 64, 1, 1]));
        assert!(no_decay("stages.0.0.gamma", &[1, 96, 1, 1]));
        assert!(no_decay("mask_tokens.0", &[1, 2048, 1, 1]));
        assert!(!no_decay("conv1.weight", &[64, 3, 7, 7]));
        assert!(!no_decay("bias_table.weight", &[4, 4]));
    }

    #[test]
    fn groups_keep_the_order_and_leave_out_the_empty() {
        let tensor = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let named = |names: &[(&str, &[i64])]| {
            names.iter().map(|&(name, shape)| (name.to_owned(), tensor(shape))).collect::<Vec<_>>()
        };
        let groups =
            param_groups(named(&[("b.weight", &[2, 2]), ("b.bias", &[2]), ("a.weight", &[2, 2])]));
        let names: Vec<Vec<&str>> =
            groups.iter().map(|g| g.params.iter().map(|(n, _)| n.as_str()).collect()).collect();
        assert_eq!(names, [vec!["b.weight", "a.weight"], vec!["b.bias"]]);
        assert_eq!(groups[0].weight_decay_scale, 1.0);
        assert_eq!(groups[1].weight_decay_scale, 0.0);
        assert_eq!(param_groups(named(&[("a.bias", &[2])])).len(), 1);
    }
}
