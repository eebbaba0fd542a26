//! Architectures by name.

/// Which published architecture a model is of: decides how its parameters are
/// called in other frameworks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// He et al. 2015, and ResNeXt and wide variants. In-memory names are timm's.
    ResNet,
    /// Liu et al. 2022. In-memory names are the official repository's.
    ConvNeXt,
    /// A reader's own network: its names are the same in every file.
    Custom,
}
