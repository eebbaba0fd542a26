//! Weights of a network that takes its images in another form.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::Naming;
use super::fit::Fit;
use crate::Result;
use crate::models::Family;

/// Standard deviations of ImageNet's channels (R, G, B), of values in 0–255.
const IMAGENET_STD: [f32; 3] = [0.229 * 255.0, 0.224 * 255.0, 0.225 * 255.0];
/// What batch norms add to a variance: one of 1 less it divides by 1.
const EPS: f64 = 1e-5;

/// What is done to tensors on their way into the model.
#[derive(Debug, Default)]
pub(super) struct Conversions {
    /// The canonical name of the first convolution.
    stem: &'static str,
    /// Whether the stem takes blue first, and whether pixels in 0–255.
    caffe2: Option<bool>,
    /// Tensors that the file has not, and their values.
    pub(super) constants: BTreeMap<String, f64>,
    /// In words.
    pub(super) told: Vec<String>,
}

/// The canonical name of the weight that images meet first, `[out, in, kh, kw]`; none
/// for a network of a reader's own.
pub fn stem_weight(family: Family) -> Option<&'static str> {
    match family {
        Family::ResNet => Some("conv1.weight"),
        Family::ConvNeXt => Some("downsample_layers.0.0.weight"),
        Family::RegNet => Some("stem.conv.weight"),
        Family::Custom => None,
    }
}

/// The conversions that make `fit` a better one; what they make fit is matched then.
pub(super) fn needed(family: Family, fit: &mut Fit) -> Conversions {
    let mut conversions = Conversions::default();
    let Some(stem) = stem_weight(family) else { return conversions };
    conversions.stem = stem;
    input_channels(stem, fit, &mut conversions);
    let key = fit.matched.get(stem);
    if fit.naming == Naming::Detectron2 && key.is_some_and(|key| key.ends_with("conv1_w")) {
        caffe2(fit, &mut conversions);
    }
    conversions
}

/// timm's `adapt_input_conv`: to one channel the others are added up; from three to
/// more they are repeated and scaled.
fn input_channels(stem: &str, fit: &mut Fit, conversions: &mut Conversions) {
    let Some(at) = fit.mismatched.iter().position(|mismatch| mismatch.name == stem) else { return };
    let mismatch = &fit.mismatched[at];
    let (&[to, into, ref kernel @ ..], &[from_to, from, ref from_kernel @ ..]) =
        (&mismatch.expected[..], &mismatch.found[..])
    else {
        return;
    };
    let adds = into == 1 && (1..=3).contains(&from);
    let repeats = into > 1 && into != 3 && from == 3;
    if to != from_to || kernel != from_kernel || kernel.len() != 2 || !(adds || repeats) {
        return;
    }
    let how = match adds {
        true => "added up".to_owned(),
        false => format!("repeated and multiplied by 3/{into}"),
    };
    conversions
        .told
        .push(format!("{stem}: its {from} input channels are {how} to make {into}, as timm does"));
    fit.mismatched.remove(at);
    if let Some(key) = fit.of_another_shape.remove(stem) {
        fit.unused.retain(|unused| *unused != key);
        fit.matched.insert(stem.to_owned(), key);
    }
}

/// Weights of Caffe2, the first in detectron2's model zoo. Batch norms are scale and
/// shift alone, which detectron2 completes by a mean of 0 and a variance of 1. Images
/// are BGR, those of plain ResNets in 0–255 with nothing but the mean taken off.
fn caffe2(fit: &mut Fit, conversions: &mut Conversions) {
    let is_running = |name: &str| {
        let (norm, value) = match name.rsplit_once('.') {
            Some((norm, "running_mean")) => (norm, 0.0),
            Some((norm, "running_var")) => (norm, 1.0 - EPS),
            _ => return None,
        };
        fit.matched.contains_key(&format!("{norm}.weight")).then_some(value)
    };
    let constants = fit.missing.iter().filter_map(|name| Some((name.clone(), is_running(name)?)));
    conversions.constants = constants.collect();
    fit.missing.retain(|name| !conversions.constants.contains_key(name));
    if !conversions.constants.is_empty() {
        conversions.told.push(
            "Caffe2's batch norms are scale and shift alone: running means are 0 and variances \
             1, as detectron2 has them"
                .into(),
        );
    }
    // Those of groups came later and divide by the deviation; there is no other sign.
    let plain = !fit.grouped;
    conversions.caffe2 = Some(plain);
    conversions.told.push(match plain {
        true => format!(
            "{}: made for BGR images in 0-255 less the mean, it is turned to RGB and multiplied \
             by ImageNet's deviations, 58.395, 57.12 and 57.375. Its blocks have their stride in \
             the first 1x1 convolution, this model in the 3x3: fine-tune it",
            conversions.stem
        ),
        false => format!("{}: made for BGR images, it is turned to RGB", conversions.stem),
    });
}

impl Conversions {
    /// `from`, which goes into the tensor `name` of this size.
    pub(super) fn apply(&self, name: &str, from: &Tensor, size: &[i64]) -> Result<Tensor> {
        if name != self.stem {
            return Ok(from.shallow_clone());
        }
        let mut from = from.shallow_clone();
        if let (Some(scaled), Some(3)) = (self.caffe2, from.size().get(1)) {
            from = from.f_flip([1])?;
            if scaled {
                let deviations = Tensor::from_slice(&IMAGENET_STD).to_kind(from.kind());
                from = from.f_mul(&deviations.f_view([1, 3, 1, 1])?)?;
            }
        }
        let (found, into) = (from.size(), size.get(1).copied().unwrap_or_default());
        if found.len() != 4 || size.len() != 4 || found[1] == into {
            return Ok(from);
        }
        // In float32 at least, as timm: sums of half precision lose digits.
        let kind = from.kind();
        let wide = match kind {
            Kind::Half | Kind::BFloat16 => from.f_to_kind(Kind::Float)?,
            _ => from,
        };
        let made = match into {
            1 => wide.f_sum_dim_intlist([1i64].as_slice(), true, None)?,
            _ => {
                let times = (into as f64 / found[1] as f64).ceil() as i64;
                let repeated = wide.f_repeat([1, times, 1, 1])?.f_narrow(1, 0, into)?;
                repeated.f_mul_scalar(found[1] as f64 / into as f64)?
            }
        };
        Ok(made.f_to_kind(kind)?)
    }
}
