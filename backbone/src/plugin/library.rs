//! A shared library that implements the interface, loaded and checked.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use libloading::Library;
use tch::Tensor;

use super::abi::{self, RawBackbone, RawTensor, Status};
use crate::{Error, Result};

/// Declares the functions of a backbone that a host calls: `create` is `spark_backbone_create`.
macro_rules! functions {
    ($($name:ident: $kind:ident),*) => {
        /// The library's functions, valid as long as it is loaded.
        #[derive(Debug)]
        struct Functions { $($name: abi::$kind,)* string_free: abi::StringFree }

        impl Functions {
            fn find(library: &Library, path: &Path) -> Result<Self> {
                let string_free = symbol(library, path, "spark_string_free")?;
                Ok(Self {
                    $($name: symbol(library, path, concat!("spark_backbone_", stringify!($name)))?,)*
                    string_free,
                })
            }
        }
    };
}

functions! {
    create: Create, destroy: Destroy, config: Config, level_count: LevelCount, level: GetLevel,
    forward: Forward, set_training: Set, freeze: Set, set_norm_eval: Set,
    tensor_count: TensorCount, tensor: GetTensor, load: Load
}

/// The function called `name`.
fn symbol<F: Copy>(library: &Library, path: &Path, name: &str) -> Result<F> {
    // The name's type is the interface's, which the version check vouches for.
    let found = unsafe { library.get::<F>(name) };
    found.map(|function| *function).map_err(|_| {
        Error::format(
            path,
            format!(
                "it has no function {name}: it must export the interface of spark_backbone.h, \
                 version {}",
                abi::VERSION
            ),
        )
    })
}

/// A loaded library. It stays loaded until the process ends: libtorch keeps
/// pointers to what it registered.
pub(super) struct Loaded {
    path: PathBuf,
    functions: Functions,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loaded({})", self.path.display())
    }
}

impl Loaded {
    /// Loads the library at `path` and checks that host and library can work
    /// together.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Only a path: a bare name would be searched for in the system.
        let path = std::path::absolute(path).map_err(|error| Error::io(path, error))?;
        if !path.is_file() {
            return Err(Error::format(&path, "there is no such file: a shared library is needed"));
        }
        // A library runs code when loaded; whoever names one trusts it.
        let library = unsafe { Library::new(&path) }.map_err(|error| {
            let mut reason: &dyn std::error::Error = &error;
            while let Some(source) = reason.source() {
                reason = source;
            }
            Error::format(&path, format!("it cannot be loaded: {reason}"))
        })?;
        check_versions(&library, &path)?;
        let functions = Functions::find(&library, &path)?;
        std::mem::forget(library);
        Ok(Self { path, functions })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a backbone; see `spark_backbone_create`.
    pub(super) fn create(self: &Arc<Self>, config: &str) -> Result<Instance> {
        let config = CString::new(config).map_err(|_| {
            Error::invalid("config", format!("{config:?}"), "C strings end at the first NUL")
        })?;
        let mut raw = ptr::null_mut();
        self.call(|error| unsafe { (self.functions.create)(config.as_ptr(), &mut raw, error) })?;
        Ok(Instance { loaded: Arc::clone(self), raw })
    }

    /// Makes a call and turns its error text into an error.
    fn call(&self, body: impl FnOnce(abi::ErrorText) -> Status) -> Result<()> {
        let mut text = ptr::null_mut();
        let status = body(&mut text);
        if status == abi::OK {
            return Ok(());
        }
        let text = self.take_string(text).unwrap_or_else(|| format!("status {status}, no text"));
        Err(Error::Plugin { path: self.path.clone(), text })
    }

    /// A string that the library handed out, freed there.
    fn take_string(&self, string: *mut c_char) -> Option<String> {
        if string.is_null() {
            return None;
        }
        // It ends with NUL and is ours until freed.
        let text = unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned();
        unsafe { (self.functions.string_free)(string) };
        Some(text)
    }
}

/// Both versions, before any function whose meaning depends on them.
fn check_versions(library: &Library, path: &Path) -> Result<()> {
    let version: abi::AbiVersion = symbol(library, path, "spark_abi_version")?;
    let found = unsafe { version() };
    if found != abi::VERSION {
        let problem = format!(
            "it has version {found} of the interface, but this program speaks version {}: \
             take the library's release that goes with this program",
            abi::VERSION
        );
        return Err(Error::format(path, problem));
    }
    let version: abi::Version = symbol(library, path, "spark_libtorch_version")?;
    // A static string, by the interface.
    let found = unsafe { CStr::from_ptr(version()) }.to_string_lossy();
    if found != super::LIBTORCH_VERSION {
        let problem = format!(
            "it is built against libtorch {found}, but this program against {}: build both \
             against the same",
            super::LIBTORCH_VERSION
        );
        return Err(Error::format(path, problem));
    }
    Ok(())
}

/// A backbone in a loaded library.
pub(super) struct Instance {
    loaded: Arc<Loaded>,
    raw: *mut RawBackbone,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instance({})", self.loaded.path.display())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Created by this library and not used again.
        unsafe { (self.loaded.functions.destroy)(self.raw) };
    }
}

// In the calls below the backbone lives, and every place that is written to is
// a local one of the type that the interface declares.
impl Instance {
    pub(super) fn path(&self) -> &Path {
        self.loaded.path()
    }

    /// The settings as JSON.
    pub(super) fn config(&self) -> Result<String> {
        let (functions, mut json) = (&self.loaded.functions, ptr::null_mut());
        self.loaded.call(|error| unsafe { (functions.config)(self.raw, &mut json, error) })?;
        self.loaded.take_string(json).ok_or_else(|| self.broken("no settings"))
    }

    /// Every level.
    pub(super) fn levels(&self) -> Result<Vec<abi::Level>> {
        let (functions, mut count) = (&self.loaded.functions, 0);
        self.loaded
            .call(|error| unsafe { (functions.level_count)(self.raw, &mut count, error) })?;
        let level = |index| {
            let mut level = abi::Level { stage: 0, channels: 0, stride: 0 };
            self.loaded
                .call(|error| unsafe { (functions.level)(self.raw, index, &mut level, error) })?;
            Ok(level)
        };
        (0..count).map(level).collect()
    }

    /// Every tensor of a kind by name; they share everything with the library's.
    pub(super) fn tensors(&self, kind: i32) -> Result<Vec<(String, Tensor)>> {
        let (functions, mut count) = (&self.loaded.functions, 0);
        self.loaded
            .call(|error| unsafe { (functions.tensor_count)(self.raw, kind, &mut count, error) })?;
        let tensor = |index| {
            let (mut name, mut tensor) = (ptr::null(), ptr::null_mut());
            self.loaded.call(|error| unsafe {
                (functions.tensor)(self.raw, kind, index, &mut name, &mut tensor, error)
            })?;
            let tensor = self.take_tensor(tensor)?;
            if name.is_null() {
                return Err(self.broken("a tensor without a name"));
            }
            // Lives as long as the backbone, by the interface.
            Ok((unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(), tensor))
        };
        (0..count).map(tensor).collect()
    }

    /// One map a level.
    pub(super) fn forward(&self, input: &Tensor, levels: usize) -> Result<Vec<Tensor>> {
        let functions = &self.loaded.functions;
        let mut outputs: Vec<*mut RawTensor> = vec![ptr::null_mut(); levels];
        let input = input.as_ptr().cast::<c_void>();
        self.loaded.call(|error| unsafe {
            (functions.forward)(self.raw, input, outputs.as_mut_ptr(), levels, error)
        })?;
        outputs.into_iter().map(|output| self.take_tensor(output)).collect()
    }

    pub(super) fn set_training(&self, on: bool) -> Result<()> {
        self.set(self.loaded.functions.set_training, i32::from(on))
    }

    pub(super) fn set_norm_eval(&self, on: bool) -> Result<()> {
        self.set(self.loaded.functions.set_norm_eval, i32::from(on))
    }

    pub(super) fn freeze(&self, freeze_at: usize) -> Result<()> {
        self.set(self.loaded.functions.freeze, i32::try_from(freeze_at).unwrap_or(i32::MAX))
    }

    fn set(&self, function: abi::Set, value: i32) -> Result<()> {
        self.loaded.call(|error| unsafe { function(self.raw, value, error) })
    }

    /// Loads a weight file; what matched in words.
    pub(super) fn load(&self, path: &Path, strict: bool) -> Result<String> {
        let text = CString::new(path.to_string_lossy().as_bytes()).map_err(|_| {
            Error::invalid("path", path.display(), "C strings end at the first NUL")
        })?;
        let (functions, mut report) = (&self.loaded.functions, ptr::null_mut());
        self.loaded.call(|error| unsafe {
            (functions.load)(self.raw, text.as_ptr(), i32::from(strict), &mut report, error)
        })?;
        Ok(self.loaded.take_string(report).unwrap_or_default())
    }

    /// A tensor that the library handed out; tch frees it as the library would.
    fn take_tensor(&self, tensor: *mut RawTensor) -> Result<Tensor> {
        if tensor.is_null() {
            return Err(self.broken("no tensor"));
        }
        Ok(unsafe { Tensor::from_ptr(tensor.cast()) })
    }

    fn broken(&self, what: &str) -> Error {
        Error::format(self.path(), format!("a call succeeded, but handed out {what}"))
    }
}
