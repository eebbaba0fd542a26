//! A network from a `.pt2` file with the classifier that it was exported with.

use anyhow::{Context, Result, ensure};
use backbone::Mode;
use backbone::graph::{GraphModel, WholeNetwork};
use backbone::models::Family;
use backbone::weights::{self, LoadOptions, StateDict, WeightFile};
use tch::{Device, Kind, Tensor, nn};

use crate::inference::Logits;

/// A network run as far as its logits.
#[derive(Debug)]
pub struct WholeClassifier {
    store: nn::VarStore,
    network: WholeNetwork,
    num_classes: i64,
}

impl WholeClassifier {
    /// `graph` as it was exported, with its file's weights, in elements of `kind`.
    ///
    /// # Errors
    /// A network that cannot be run to its end, or returns no logits.
    pub fn new(graph: &GraphModel, device: Device, kind: Kind) -> Result<Self> {
        ensure!(
            graph.in_chans() == 3,
            "{} takes images of {} channels, but images are read as RGB",
            graph.name(),
            graph.in_chans()
        );
        let mut store = nn::VarStore::new(device);
        let network = graph.whole(&store.root())?;
        if kind == Kind::Double {
            store.double();
        }
        // Behind the logits stand those of auxiliary classifiers.
        let first = network.sizes().first();
        let num_classes = first.filter(|size| size.len() == 2).map(|size| size[1]);
        let num_classes = num_classes.with_context(|| {
            format!(
                "{} is no classifier: it returns tensors of shapes {:?}, but logits are [images, \
                 classes]",
                graph.name(),
                network.sizes()
            )
        })?;
        Ok(Self { store, network, num_classes })
    }

    /// Every parameter and buffer by its name in the state dict, sharing storage.
    pub fn variables(&self) -> StateDict {
        self.store.variables().into_iter().collect()
    }

    /// Reads other weights of the same network, head included.
    ///
    /// # Errors
    /// A file that fits only in part.
    pub fn load(&self, file: &WeightFile) -> Result<()> {
        let options = LoadOptions::of(Family::Custom);
        weights::load(&self.variables(), Family::Custom, file, &options)?;
        Ok(())
    }
}

impl Logits for WholeClassifier {
    fn num_classes(&self) -> i64 {
        self.num_classes
    }

    fn kind(&self) -> Kind {
        let kinds = self.store.variables().into_values().map(|tensor| tensor.kind());
        let is_float = |kind: &Kind| matches!(kind, Kind::Float | Kind::Double);
        kinds.into_iter().find(is_float).unwrap_or(Kind::Float)
    }

    fn device(&self) -> Device {
        self.store.device()
    }

    fn logits(&self, images: &Tensor, mode: &Mode) -> backbone::Result<Tensor> {
        Ok(self.network.forward(images, mode)?.swap_remove(0))
    }
}
