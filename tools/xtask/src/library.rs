//! `libspark_backbone.so`: built, or given by the user.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::process;
use crate::setup::Checkout;

/// The library's file, wherever it is put.
pub const LIBRARY: &str = "libspark_backbone.so";

/// How cargo builds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Optimised.
    Release,
    /// As the tests are built: sooner ready, with line numbers.
    Dev,
}

impl Profile {
    /// Cargo's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    /// The folder in cargo's target folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// Where the library comes from.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// How the library is built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub profile: Profile,
    /// Take this libspark_backbone.so instead of building one
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
}

impl Source {
    /// The library, built in `checkout` unless one is given; where it lies.
    pub fn provide(&self, checkout: &Checkout) -> Result<PathBuf> {
        if let Some(library) = &self.library {
            if !library.is_file() {
                bail!("--library is {}, but there is no such file", library.display());
            }
            return Ok(library.clone());
        }
        let mut cargo = checkout.cargo();
        let profile = self.profile;
        process::run(cargo.args(["build", "--package", "spark-ffi", "--profile", profile.name()]))?;
        let library = checkout.target.join(profile.folder()).join(LIBRARY);
        if !library.is_file() {
            bail!("cargo built no {}: the shared library is for Linux", library.display());
        }
        Ok(library)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::Choice;
    use crate::python::Environment;

    #[test]
    fn a_library_that_is_not_there_is_refused() {
        let library = Some(PathBuf::from("/nowhere/libspark_backbone.so"));
        let source = Source { profile: Profile::Release, library };
        let checkout = Checkout {
            root: "/".into(),
            environment: Environment::at("/cache".into()),
            choice: Choice::ActivePython,
            libtorch: "/torch".into(),
            version: "2.13.0".into(),
            target: "/target".into(),
        };
        let error = source.provide(&checkout).unwrap_err().to_string();
        assert_eq!(error, "--library is /nowhere/libspark_backbone.so, but there is no such file");
    }
}
