//! What frozen features are worth: the cheap figures that tell, during or after
//! pretraining, how well classes can be read off a backbone.
//!
//! [`Knn`] lets the nearest training images vote; [`LinearProbe`] fits a linear
//! classifier. Both are deterministic.

mod figure;
mod images;
mod knn;
mod lbfgs;
mod linear;
mod scaling;

use backbone::layers::global_avg_pool;
use backbone::{Backbone, FeatureMap, Mode};
use tch::{Kind, Tensor};

pub use figure::{Pool, ProbeFigure, StageColumns, pooled_stages};
pub use images::{ProbeData, in_order};
pub use knn::Knn;
pub use lbfgs::{Lbfgs, LbfgsResult};
pub use linear::{LinearClassifier, LinearProbe};
pub use scaling::{Scaler, Scaling};

use crate::{Error, Result};

/// Features of images whose classes are known.
#[derive(Debug)]
pub struct FeatureBank {
    features: Tensor,
    classes: Tensor,
    num_classes: i64,
}

impl FeatureBank {
    /// `features` is `[N, D]` of a floating type; `classes` has one of
    /// 0..`num_classes` for each row.
    ///
    /// # Errors
    /// [`Error::Input`] for other shapes, no rows, classes out of range, or
    /// features that are not finite.
    pub fn new(features: Tensor, classes: &[i64], num_classes: i64) -> Result<Self> {
        let size = features.size();
        if size.len() != 2 || size[0] == 0 || !features.is_floating_point() {
            let value = format!("{:?} {size:?}", features.kind());
            return Err(Error::invalid("features", value, "they must be [N, D] floats, N ≥ 1"));
        }
        if size[0] != classes.len() as i64 {
            let rule = format!("there are {} rows of features", size[0]);
            return Err(Error::invalid("number of classes", classes.len(), rule));
        }
        if let Some(class) = classes.iter().find(|class| !(0..num_classes).contains(*class)) {
            return Err(Error::invalid("class", class, format!("it must be in 0..{num_classes}")));
        }
        if features.isfinite().all().int64_value(&[]) == 0 {
            let rule = "they must be finite: the network's weights are not";
            return Err(Error::invalid("features", "NaN or infinite", rule));
        }
        let classes = Tensor::from_slice(classes).to_device(features.device());
        Ok(Self { features, classes, num_classes })
    }

    /// `[N, D]`.
    pub fn features(&self) -> &Tensor {
        &self.features
    }

    /// int64 `[N]`.
    pub fn classes(&self) -> &Tensor {
        &self.classes
    }

    /// How many classes there are, all of them among the rows or not.
    pub fn num_classes(&self) -> i64 {
        self.num_classes
    }

    /// Share of the rows whose class was `predicted` (int64 `[N]`).
    pub fn accuracy(&self, predicted: &Tensor) -> f64 {
        let right = predicted.eq_tensor(&self.classes);
        right.to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    }

    /// The same images with what `change` makes of their rows `[N, D]`.
    pub fn mapped(&self, change: impl FnOnce(&Tensor) -> Tensor) -> Self {
        Self {
            features: change(&self.features),
            classes: self.classes.shallow_clone(),
            num_classes: self.num_classes,
        }
    }

    /// The same images with these columns of their features.
    pub fn columns(&self, columns: std::ops::Range<i64>) -> Self {
        self.mapped(|rows| rows.narrow(1, columns.start, columns.end - columns.start))
    }

    /// The rows `index` (int64) names.
    fn select(&self, index: &Tensor) -> Self {
        Self {
            features: self.features.index_select(0, index),
            classes: self.classes.index_select(0, index),
            num_classes: self.num_classes,
        }
    }
}

/// The last stage's map of `images` `[N, C, H, W]`, averaged over its positions:
/// float32 `[N, D]`.
///
/// # Errors
/// Images that the backbone does not take.
pub fn pooled(backbone: &dyn Backbone, images: &Tensor, mode: &Mode) -> backbone::Result<Tensor> {
    let maps = backbone.forward(&FeatureMap::Grid(images.shallow_clone()), mode)?;
    let last = maps.last().ok_or_else(|| {
        backbone::Error::invalid("backbone", "without stages", "it must have at least one")
    })?;
    let features = global_avg_pool(last);
    let wide = if features.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    Ok(features.to_kind(wide))
}

#[cfg(test)]
mod tests;
