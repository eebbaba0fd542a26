//! Backbones from shared libraries that implement `spark_backbone.h`: ours,
//! `libspark_backbone.so`, or anybody's own.
//!
//! ```no_run
//! # fn main() -> backbone::Result<()> {
//! use backbone::plugin::Plugin;
//! use backbone::{Backbone, FeatureMap, Mode};
//! use tch::{Device, Kind, Tensor};
//!
//! let plugin = Plugin::open("libspark_backbone.so")?;
//! let network = plugin.create(r#"{"model": "resnet50", "out_indices": [1, 2, 3]}"#)?;
//! let store = tch::nn::VarStore::new(Device::Cpu);
//! network.register(&(store.root() / "backbone"))?;
//! let images = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
//! let maps = network.forward(&FeatureMap::Grid(images), &Mode::eval())?;
//! assert_eq!(maps.len(), network.stages().len());
//! # Ok(())
//! # }
//! ```

// Calling into a library is unsafe by nature: its author vouches for the
// interface, the version check for its shape.
#![allow(unsafe_code)]

pub mod abi;
mod library;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;
use tch::nn::Path as VarPath;

use self::library::{Instance, Loaded};
use crate::mode::DropPathDraws;
use crate::{Backbone, Error, FeatureMap, Mode, Result, Stage};

/// The libtorch release that this program is built against.
pub const LIBTORCH_VERSION: &str = env!("SPARK_LIBTORCH_VERSION");

/// A library that makes backbones.
#[derive(Debug, Clone)]
pub struct Plugin(Arc<Loaded>);

impl Plugin {
    /// Loads the library at `path`, which stays loaded until the process ends.
    ///
    /// # Errors
    /// There is no such file, it is no shared library or needs one that is
    /// missing, it does not export the interface, or it was built for another
    /// version of the interface or of libtorch.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self(Arc::new(Loaded::open(path.as_ref())?)))
    }

    /// Where it was loaded from.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Creates a backbone; `config` is a model's name or a JSON object, see
    /// `spark_backbone_create` in `spark_backbone.h`.
    ///
    /// # Errors
    /// What the library says, among it that another copy of it is loaded in
    /// this process already; or a library whose answers break the interface.
    pub fn create(&self, config: &str) -> Result<PluginBackbone> {
        PluginBackbone::new(self.0.create(config)?)
    }
}

/// A backbone that a plugin runs. Its parameters are the library's own tensors.
#[derive(Debug)]
pub struct PluginBackbone {
    instance: Mutex<Instance>,
    stages: Vec<Stage>,
    in_chans: i64,
    parameters: Vec<(String, Tensor)>,
    buffers: Vec<(String, Tensor)>,
    freeze_at: AtomicUsize,
}

impl PluginBackbone {
    fn new(instance: Instance) -> Result<Self> {
        let broken = |problem: String| Error::format(instance.path(), problem);
        let levels = instance.levels()?;
        let stages: Vec<Stage> = levels
            .iter()
            .map(|level| Stage { channels: level.channels, stride: level.stride })
            .collect();
        let sound = stages.iter().all(|stage| stage.channels > 0 && stage.stride > 0);
        if stages.is_empty() || !sound || !stages.is_sorted_by_key(|stage| stage.stride) {
            return Err(broken(format!(
                "its levels are {levels:?}, but there must be some, with positive channels and \
                 ascending strides"
            )));
        }
        let config = instance.config()?;
        let settings: serde_json::Value = serde_json::from_str(&config)
            .map_err(|error| broken(format!("its settings are no JSON ({error}): {config}")))?;
        let in_chans = settings["in_chans"].as_i64().unwrap_or(3);
        let parameters = instance.tensors(abi::PARAMETER)?;
        let buffers = instance.tensors(abi::BUFFER)?;
        Ok(Self {
            instance: Mutex::new(instance),
            stages,
            in_chans,
            parameters,
            buffers,
            freeze_at: AtomicUsize::new(0),
        })
    }

    /// Parameters by name; an optimizer on them trains the backbone.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Buffers by name: what is saved, but not trained.
    pub fn buffers(&self) -> &[(String, Tensor)] {
        &self.buffers
    }

    /// Puts parameters and buffers, as they are and shared, under `path`, where
    /// optimizers and checkpoints look for them.
    ///
    /// # Errors
    /// A device other than the backbone's.
    pub fn register(&self, path: &VarPath) -> Result<()> {
        let device = path.device();
        for (trainable, tensors) in [(true, &self.parameters), (false, &self.buffers)] {
            for (name, tensor) in tensors {
                if tensor.device() != device {
                    let rule = format!("the variable store is on {device:?}: create it there");
                    let value = format!("{:?}", tensor.device());
                    return Err(Error::invalid("the plugin's device", value, rule));
                }
                let mut parts: Vec<&str> = name.split('.').collect();
                let Some(last) = parts.pop() else { continue };
                let path = parts.iter().fold(path.clone(), |path, part| path / *part);
                let trainable = trainable && tensor.requires_grad();
                let _ = path.add(last, tensor.shallow_clone(), trainable);
            }
        }
        Ok(())
    }

    /// Freezes the stages below `freeze_at`; see `spark_backbone_freeze`.
    ///
    /// # Errors
    /// It exceeds the number of stages, the stem included.
    pub fn freeze(&self, freeze_at: usize) -> Result<()> {
        self.locked(|instance| instance.freeze(freeze_at))?;
        self.freeze_at.store(freeze_at, Ordering::Relaxed);
        Ok(())
    }

    /// Loads a weight file; says in words what matched.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit.
    pub fn load(&self, path: impl AsRef<Path>, strict: bool) -> Result<String> {
        self.locked(|instance| instance.load(path.as_ref(), strict))
    }

    /// One call at a time: mode and forward belong together.
    fn locked<T>(&self, body: impl FnOnce(&Instance) -> T) -> T {
        // The library keeps its own state; a panic here leaves nothing half done.
        body(&self.instance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the interface cannot express.
    fn check_mode(&self, x: &FeatureMap, mode: &Mode) -> Result<()> {
        let refuse = |operand: &str, value: &str, rule: &str| {
            Err(Error::invalid(operand, value, format!("a plugin {rule}")))
        };
        if x.mask().is_some() {
            return refuse("input", "masked", "runs on whole grids only");
        }
        if mode.compute.is_some() {
            return refuse("compute", "set", "computes in its parameters' type");
        }
        if matches!(mode.drop_path, DropPathDraws::Table(_)) {
            return refuse("drop_path", "a table", "draws from libtorch's generator");
        }
        let frozen = self.freeze_at.load(Ordering::Relaxed);
        if mode.freeze_at != 0 && mode.freeze_at != frozen {
            let rule = format!("is frozen at {frozen}: call its freeze()");
            return refuse("freeze_at", &mode.freeze_at.to_string(), &rule);
        }
        Ok(())
    }
}

impl Backbone for PluginBackbone {
    fn stages(&self) -> &[Stage] {
        &self.stages
    }

    fn in_chans(&self) -> i64 {
        self.in_chans
    }

    /// # Panics
    /// Where [`Backbone::forward`] gives an error.
    fn forward_features(&self, x: &FeatureMap, mode: &Mode) -> Vec<FeatureMap> {
        self.forward(x, mode).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The pyramid of the whole grid `x`. Stages are frozen by
    /// [`PluginBackbone::freeze`], not by the mode.
    ///
    /// # Errors
    /// What the library says, or a mode that the interface cannot express:
    /// masked input, another compute type, a table of drop-path draws, other
    /// frozen stages.
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> Result<Vec<FeatureMap>> {
        self.check_mode(x, mode)?;
        let maps = self.locked(|instance| {
            instance.set_training(mode.training)?;
            instance.set_norm_eval(mode.norm_eval)?;
            instance.forward(x.tensor(), self.stages.len())
        })?;
        Ok(maps.into_iter().take(mode.stages).map(FeatureMap::Grid).collect())
    }
}
