//! A training step of SparK, as the trainer of `pretrain train` takes it on one process.

use std::path::Path;

use anyhow::{Context, Result, bail};
use backbone::models::{self, Family, Model};
use backbone::{PatchMask, Size};
use engine::distributed::Gradients;
use engine::optim::{Lamb, LambConfig, Optimizer as _, param_groups};
use pretrain::spark::{Execution, Spark};
use tch::{Device, Tensor, nn};

use super::{ACTIVE, SparkInputs, build, load_weights};
use crate::inputs::{self, IMAGES};
use crate::worker::Updates;

/// The model, what updates it, and the one batch it sees.
pub struct Step {
    spark: Spark,
    gradients: Gradients,
    optimizer: Lamb,
    updates: Updates,
    /// `[N, 3, H, W]`.
    images: Tensor,
    /// Visible patches, and how they count.
    visible: Vec<i64>,
    grid: Size,
    _store: nn::VarStore,
}

impl Step {
    /// Of `model`, a registered one or, if it is exported, one of timm's, on what lies at `inputs`.
    ///
    /// # Errors
    /// The inputs are missing or do not fit the model.
    pub fn new(
        model: &str,
        exported: bool,
        inputs: &Path,
        device: Device,
        updates: Updates,
    ) -> Result<Self> {
        let family = models::registered(model).ok().flatten().map(Model::family);
        let store = nn::VarStore::new(device);
        let spark = match exported {
            true => build(&SparkInputs::pt2(inputs).display().to_string(), &store)?,
            false => build(model, &store)?,
        };
        let mut tensors = backbone::weights::read(inputs)?.tensors;
        load_weights(&store, &mut tensors, inputs, family.filter(|_| exported))?;
        let images = inputs::take(&mut tensors, IMAGES, inputs)?.to_device(device);
        let active = inputs::take(&mut tensors, ACTIVE, inputs)?;
        let &[_, _, rows, columns] = active.size().as_slice() else {
            bail!("{ACTIVE} is of shape {:?}, but it must be [N, 1, rows, columns]", active.size())
        };
        let flags = Vec::<bool>::try_from(active.reshape([-1])).context("reading the mask")?;
        let visible = (0..).zip(flags).filter(|(_, on)| *on).map(|(index, _)| index).collect();
        Ok(Self {
            spark,
            gradients: Gradients::alone(),
            optimizer: optimizer(family, &store)?,
            updates,
            images,
            visible,
            grid: (rows, columns),
            _store: store,
        })
    }

    /// Takes it; its loss.
    ///
    /// # Errors
    /// What the model or the gradients fail with.
    pub fn take(&mut self) -> Result<f64> {
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        let mask = PatchMask::from_visible(self.batch(), self.grid, &self.visible, self.device())?;
        let loss = self.spark.loss(&self.images, &mask, &self.updates.mode(), Execution::Packed)?;
        self.gradients.backward(&loss, true)?;
        self.optimizer.step(self.updates.lr, self.updates.weight_decay);
        Ok(loss.double_value(&[]))
    }

    /// Images of the batch.
    pub fn batch(&self) -> i64 {
        self.images.size()[0]
    }

    /// Where it is computed.
    pub fn device(&self) -> Device {
        self.images.device()
    }

    /// Doubles the batch: each image comes twice, masked alike.
    pub fn double(&mut self) {
        let patches = self.batch() * self.grid.0 * self.grid.1;
        self.images = self.images.repeat([2, 1, 1, 1]);
        let again: Vec<i64> = self.visible.iter().map(|index| index + patches).collect();
        self.visible.extend(again);
    }
}

/// LAMB with the official settings of the model's family.
fn optimizer(family: Option<Family>, store: &nn::VarStore) -> Result<Lamb> {
    let mut params: Vec<_> =
        store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let betas = (0.9, if family == Some(Family::ConvNeXt) { 0.999 } else { 0.95 });
    Ok(Lamb::new(param_groups(params), LambConfig { betas, ..LambConfig::default() })?)
}
