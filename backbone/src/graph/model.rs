//! A network out of a file.

use std::path::Path;

use tch::nn;

use crate::models::{BuildOptions, Cost};
use crate::weights::StateDict;
use crate::{Backbone, Result, Stage};

/// A network read from a `.pt2` file: its graph, and the weights in it.
#[derive(Debug)]
pub struct GraphModel {}

impl GraphModel {
    /// Reads `path`. `stages` names the modules whose outputs are the stages, finest first; empty:
    /// they are found.
    ///
    /// # Errors
    /// No `.pt2` of a network that runs here.
    pub fn open(_path: &Path, _stages: &[String]) -> Result<Self> {
        todo!()
    }

    /// The network that [`GraphModel::to_bytes`] wrote; `name` is what it is called.
    ///
    /// # Errors
    /// Bytes that it did not write.
    pub fn from_bytes(_name: &str, _bytes: &[u8]) -> Result<Self> {
        todo!()
    }

    /// The graph, its stages and the tensors that no stage needs, for a checkpoint to carry: all
    /// that [`GraphModel::build`] and the exports take besides the network's own variables.
    ///
    /// # Errors
    /// Tensors that cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        todo!()
    }

    /// The file's name without its ending.
    pub fn name(&self) -> &str {
        todo!()
    }

    /// The levels of the pyramid.
    pub fn stages(&self) -> &[Stage] {
        todo!()
    }

    /// Why the network cannot be pretrained, if it cannot: it runs on the whole grid alone.
    pub fn refusal(&self) -> Option<&str> {
        todo!()
    }

    /// Whether it holds the values of the variables that [`GraphModel::build`] makes: it does when
    /// it was read from a file, not when a checkpoint carried it.
    pub fn has_weights(&self) -> bool {
        todo!()
    }

    /// The network with its variables under `path`, by the names of its state dict. They have the
    /// file's values unless `options` leaves them uninitialised (or they are not there).
    ///
    /// # Errors
    /// `options` that it was not exported for: other channels, a drop-path rate without blocks
    /// that drop.
    pub fn build(&self, _path: &nn::Path, _options: &BuildOptions) -> Result<Box<dyn Backbone>> {
        todo!()
    }

    /// Parameters and multiply-adds of what the stages need, for an image of that size.
    pub fn cost(&self, _height: i64, _width: i64) -> Cost {
        todo!()
    }

    /// Channels of the input image.
    pub fn in_chans(&self) -> i64 {
        todo!()
    }

    /// The whole state dict under its original names: `tensors`, the network's variables, and what
    /// no stage needs as it is in the file.
    ///
    /// # Errors
    /// A variable is missing.
    pub fn state_dict(&self, _tensors: &StateDict) -> Result<StateDict> {
        todo!()
    }

    /// Writes a `.pt2` of the whole network with these variables, which `torch.export.load` reads.
    ///
    /// # Errors
    /// [`crate::Error::Io`], or a variable that is missing.
    pub fn write_pt2(&self, _path: &Path, _tensors: &StateDict) -> Result<()> {
        todo!()
    }

    /// Several lines: stages, parameters, FLOPs, operators by kind, what runs on visible patches,
    /// what on the grid, what draws random numbers, and why it cannot be pretrained if so.
    pub fn describe(&self) -> String {
        todo!()
    }
}
