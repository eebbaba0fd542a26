//! From the tree a checkpoint is to the weights in it: training state is left
//! out, and a dictionary that merely wraps the weights is taken off.

use std::collections::{BTreeMap, BTreeSet};

use super::StateDict;

/// Drops training state, then takes off wrapping dictionaries while one holds
/// everything. `dictionaries` are the dotted paths at which the file really
/// has a dictionary: `{"model": {"conv1.weight": …}}` is unwrapped, the single
/// key `model.conv1.weight` is not. Names in `left_out` follow. Returns what was
/// taken off.
pub(crate) fn unwrap(
    tensors: &mut StateDict,
    left_out: &mut BTreeMap<String, String>,
    dictionaries: &BTreeSet<String>,
) -> Option<String> {
    tensors.retain(|name, _| !is_training_state(name));
    let mut wrapper = String::new();
    while let Some(next) = common_dictionary(tensors, &wrapper, dictionaries) {
        wrapper = next;
    }
    if wrapper.is_empty() {
        return None;
    }
    let cut = |name: &str| -> String {
        let rest = name.strip_prefix(&wrapper).and_then(|rest| rest.strip_prefix('.'));
        rest.unwrap_or(name).into()
    };
    *tensors = std::mem::take(tensors).into_iter().map(|(k, v)| (cut(&k), v)).collect();
    *left_out = std::mem::take(left_out).into_iter().map(|(k, v)| (cut(&k), v)).collect();
    Some(wrapper)
}

/// The dictionary below `wrapper` that holds every tensor, if there is one
/// with a name that is known to hold whole models. Others, such as `backbone`,
/// are part of the tensors' names.
fn common_dictionary(
    tensors: &StateDict,
    wrapper: &str,
    dictionaries: &BTreeSet<String>,
) -> Option<String> {
    const WRAPPERS: [&str; 12] = [
        "state_dict",
        "model_state_dict",
        "model_state",
        "model",
        "module",
        "model_ema",
        "state_dict_ema",
        "ema",
        "net",
        "network",
        "weights",
        "params",
    ];
    WRAPPERS.iter().find_map(|name| {
        let path = if wrapper.is_empty() { (*name).into() } else { format!("{wrapper}.{name}") };
        let start = format!("{path}.");
        let holds_all = !tensors.is_empty() && tensors.keys().all(|key| key.starts_with(&start));
        (holds_all && dictionaries.contains(&path)).then_some(path)
    })
}

/// Whether the tensor is kept for resuming a training run: its first path
/// component says so. No network calls its first module like this.
pub(super) fn is_training_state(name: &str) -> bool {
    const STATE: [&str; 20] = [
        "optimizer",
        "optimizers",
        "optimizer_state",
        "optimizer_states",
        "optimizer_state_dict",
        "optim",
        "optim_state_dict",
        "opt",
        "lr_scheduler",
        "lr_schedulers",
        "scheduler",
        "scheduler_state_dict",
        "scaler",
        "amp",
        "amp_scaler",
        "loss_scaler",
        "rng_state",
        "cuda_rng_state",
        "callbacks",
        "loops",
    ];
    let first = name.split('.').next().unwrap_or(name);
    STATE.contains(&first)
}

/// The file's text, numbers and flags, plus what wrapped its weights.
pub(crate) fn with_wrapper(
    mut metadata: BTreeMap<String, String>,
    wrapper: Option<String>,
) -> BTreeMap<String, String> {
    if let Some(wrapper) = wrapper {
        metadata.insert("wrapper".into(), wrapper);
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn names(keys: &[&str], dictionaries: &[&str]) -> (Vec<String>, Option<String>) {
        let mut tensors: StateDict =
            keys.iter().map(|key| (key.to_string(), Tensor::from(0f32))).collect();
        let dictionaries = dictionaries.iter().map(|name| name.to_string()).collect();
        let wrapper = unwrap(&mut tensors, &mut BTreeMap::new(), &dictionaries);
        (tensors.into_keys().collect(), wrapper)
    }

    #[test]
    fn optimizer_state_goes_and_nested_wrappers_come_off() {
        let keys = ["model.module.conv1.weight", "optimizer.state.0.exp_avg"];
        let (left, wrapper) = names(&keys, &["model", "model.module", "optimizer"]);
        assert_eq!(left, ["conv1.weight"]);
        assert_eq!(wrapper.as_deref(), Some("model.module"));
    }

    #[test]
    fn a_key_that_only_begins_like_a_wrapper_stays() {
        let (left, wrapper) = names(&["module.conv1.weight"], &[]);
        assert_eq!(left, ["module.conv1.weight"]);
        assert_eq!(wrapper, None);
    }

    #[test]
    fn two_models_side_by_side_stay_apart() {
        let keys = ["state_dict.fc.weight", "state_dict_ema.fc.weight"];
        let (left, wrapper) = names(&keys, &["state_dict", "state_dict_ema"]);
        assert_eq!(left, keys);
        assert_eq!(wrapper, None);
    }
}
