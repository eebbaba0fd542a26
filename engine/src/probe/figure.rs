//! The figures that a probe can take, of features of any stage.

use std::ops::Range;

use backbone::{Backbone, FeatureMap, Mode};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{FeatureBank, Knn, LinearProbe, Scaling};
use crate::Result;

/// How well classes can be read off frozen features, as a share of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeFigure {
    /// 20 nearest neighbours by their cosine
    Knn,
    /// The same of standardised features
    KnnStandard,
    /// The same of whitened features
    KnnWhitened,
    /// A linear classifier of standardised features
    Linear,
}

/// How a map becomes features: over its positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// Each channel's mean
    Mean,
    /// Each channel's largest value
    Max,
    /// Both
    Both,
}

impl ProbeFigure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Knn, Self::KnnStandard, Self::KnnWhitened, Self::Linear];

    /// As a key of a record, and as a person reads it.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Knn => ("knn_top1", "nearest neighbours"),
            Self::KnnStandard => ("knn_standard_top1", "nearest neighbours, standardised"),
            Self::KnnWhitened => ("knn_whitened_top1", "nearest neighbours, whitened"),
            Self::Linear => ("linear_top1", "a linear classifier"),
        }
    }

    /// The share of the images in `validation` whose class is read right after `training`.
    ///
    /// # Errors
    /// Banks of different widths.
    pub fn top1(self, training: &FeatureBank, validation: &FeatureBank) -> Result<f64> {
        let neighbours = |scaling: Scaling| {
            let Some(scaler) = scaling.fit(training)? else {
                return Knn::default().predict(training, validation.features());
            };
            let queries = scaler.apply(validation.features());
            Knn::default().predict(&training.mapped(|rows| scaler.apply(rows)), &queries)
        };
        let found = match self {
            Self::Knn => neighbours(Scaling::None)?,
            Self::KnnStandard => neighbours(Scaling::Standard)?,
            Self::KnnWhitened => neighbours(Scaling::Whitened)?,
            Self::Linear => LinearProbe::default().fit(training)?.predict(validation.features()),
        };
        Ok(validation.accuracy(&found))
    }
}

/// Every stage's map, pooled by mean and by maximum, side by side: `[N, D]`, and where each stage
/// lies.
///
/// # Errors
/// Images that the backbone does not take.
pub fn pooled_stages(
    backbone: &dyn Backbone,
    images: &Tensor,
    mode: &Mode,
) -> backbone::Result<(Tensor, StageColumns)> {
    let maps = backbone.forward(&FeatureMap::Grid(images.shallow_clone()), mode)?;
    let wide = |map: Tensor| {
        let kind = if map.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        map.to_kind(kind)
    };
    let maps: Vec<Tensor> = maps.iter().map(|map| wide(map.to_grid())).collect();
    let places = [2i64, 3];
    let pooled: Vec<Tensor> = maps
        .iter()
        .flat_map(|map| [map.mean_dim(places.as_slice(), false, None), map.amax(places, false)])
        .collect();
    let widths = maps.iter().map(|map| map.size()[1]).collect();
    Ok((Tensor::cat(&pooled, 1), StageColumns { widths }))
}

/// Where the features of each stage lie in [`pooled_stages`].
#[derive(Debug, Clone, Default)]
pub struct StageColumns {
    widths: Vec<i64>,
}

impl StageColumns {
    /// Stages, finest first.
    pub fn stages(&self) -> usize {
        self.widths.len()
    }

    /// The columns of `stage` (from 0) pooled like this.
    pub fn of(&self, stage: usize, pool: Pool) -> Range<i64> {
        let before: i64 = self.widths[..stage].iter().map(|width| 2 * width).sum();
        let width = self.widths[stage];
        match pool {
            Pool::Mean => before..before + width,
            Pool::Max => before + width..before + 2 * width,
            Pool::Both => before..before + 2 * width,
        }
    }
}
