//! A model's tensors under another framework's names and shapes.

use tch::{Kind, Tensor};

use super::{Naming, StateDict, check_finite};
use crate::models::Family;
use crate::{Error, Result};

/// `tensors`, which bear canonical names, as `naming` has them: names, shapes,
/// and the `num_batches_tracked` that a batch norm has in Python. The numbers
/// are shared with `tensors`, not copied.
///
/// # Errors
/// [`Error::Weights`] when the framework has no such family, for names that
/// are not of the family, or for values that are not finite.
pub fn export(family: Family, naming: Naming, tensors: &StateDict) -> Result<StateDict> {
    if !naming.has(family) {
        return Err(Error::Weights(format!(
            "{naming} has no {family:?}: export for one of {}",
            Naming::ALL
                .map(|other| (other, other.has(family)))
                .iter()
                .filter(|(_, has)| *has)
                .map(|(other, _)| other.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )));
    }
    check_finite("the model", tensors, "it computes nothing, and is not exported")?;
    let mut exported = StateDict::new();
    let mut unknown = Vec::new();
    for (name, tensor) in with_batch_counts(tensors) {
        match naming.to(family, &name) {
            Some(foreign) => {
                let shape = naming.shape(family, &name, &tensor.size());
                exported.insert(foreign, tensor.f_detach()?.f_reshape(shape)?);
            }
            None => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(exported);
    }
    unknown.truncate(10);
    Err(Error::Weights(format!(
        "these are no tensors of a {family:?} encoder, and {naming} has no names for them: {}",
        unknown.join(", ")
    )))
}

/// All tensors, and a zero for each batch norm that doesn't count its batches.
fn with_batch_counts(tensors: &StateDict) -> StateDict {
    let mut all: StateDict = StateDict::new();
    for (name, tensor) in tensors {
        if let Some(norm) = name.strip_suffix("running_mean") {
            let count = format!("{norm}num_batches_tracked");
            if !tensors.contains_key(&count) {
                all.insert(count, Tensor::zeros([0i64; 0], (Kind::Int64, tensor.device())));
            }
        }
        all.insert(name.clone(), tensor.shallow_clone());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, shape: &[i64]) -> StateDict {
        [(name.to_string(), Tensor::ones(shape, (Kind::Float, tch::Device::Cpu)))].into()
    }

    #[test]
    fn detectron2_has_no_convnext() {
        let tensors = one("norm.weight", &[8]);
        let message =
            export(Family::ConvNeXt, Naming::Detectron2, &tensors).unwrap_err().to_string();
        assert!(message.contains("detectron2 has no ConvNeXt"), "{message}");
        assert!(message.contains("torchvision"), "{message}");
    }

    #[test]
    fn a_decoder_is_not_exported_unseen() {
        let tensors = one("dense_decoder.proj.weight", &[3]);
        let message = export(Family::ResNet, Naming::Timm, &tensors).unwrap_err().to_string();
        assert!(message.contains("dense_decoder.proj.weight"), "{message}");
    }

    #[test]
    fn torchvision_scales_layers_in_three_dimensions() {
        let tensors = one("stages.2.5.gamma", &[8]);
        let exported = export(Family::ConvNeXt, Naming::Torchvision, &tensors).unwrap();
        assert_eq!(exported["features.5.5.layer_scale"].size(), [8, 1, 1]);
    }

    #[test]
    fn timm_has_convolutions_in_convnexts_narrower_than_tiny() {
        let exported = |name: &str, shape: &[i64]| {
            let exported = export(Family::ConvNeXt, Naming::Timm, &one(name, shape)).unwrap();
            exported.into_values().next().unwrap().size()
        };
        assert_eq!(exported("stages.0.1.pwconv1.weight", &[320, 80]), [320, 80, 1, 1]);
        assert_eq!(exported("stages.3.1.pwconv2.weight", &[640, 2560]), [640, 2560, 1, 1]);
        assert_eq!(exported("stages.3.1.pwconv2.weight", &[768, 3072]), [768, 3072]);
        assert_eq!(exported("head.weight", &[10, 640]), [10, 640]);
    }

    #[test]
    fn a_batch_norm_gets_its_count() {
        let tensors = one("layer1.0.bn1.running_mean", &[8]);
        let exported = export(Family::ResNet, Naming::Detectron2, &tensors).unwrap();
        let count = &exported["res2.0.conv1.norm.num_batches_tracked"];
        assert_eq!((count.kind(), count.size()), (Kind::Int64, vec![]));
    }
}
