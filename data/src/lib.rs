//! From files to batches: index a data set, decode, augment, and keep the step fed.
//!
//! A [`Dataset`] is an index of images in folders, lists or tar shards, a [`LabelledDataset`] of
//! such with one folder a class. A [`Transform`] turns one [`LazyImage`], a decoded [`Image`] or an
//! [`ImageFile`], into normalised floats. An [`EpochSampler`] says which image comes when, and a
//! [`Loader`] runs both on threads ahead of the training step; a [`Source`] of one's own makes it
//! load other things.
//! Every batch is a pure function of (seed, epoch, position), for any number of threads and from
//! any step on.

mod atomic;
mod byte_size;
mod corrupt;
mod dataset;
mod decode;
pub mod error;
pub mod files;
mod image;
mod lazy_image;
mod loader;
mod mixup;
pub mod names;
mod packed;
mod peers;
pub mod rng;
mod sampler;
pub mod shards;
mod tensor;
pub mod text;
mod transforms;
mod user_cache;

pub use atomic::{Temporary, is_temporary, write_atomically, write_file};
pub use byte_size::ByteSize;
pub use corrupt::CorruptFiles;
pub use dataset::{Dataset, DatasetOptions, Fetch, LabelledDataset, StorageOptions};
pub use decode::{ImageFile, MAX_PIXELS, claimed_size, decode, decode_deep, orientation};
pub use error::{Error, Result};
pub use image::{CropBox, Image, Interpolation, Pixels};
pub use lazy_image::LazyImage;
pub use loader::{
    Batch, Batches, ImageSet, ImageSource, Images, LabelledImages, LabelledSource, Loader,
    LoaderOptions, SampleIndex, Source,
};
pub use mixup::{MixParams, Mixup, soft_targets};
pub use peers::{Alone, Failure, Peers, gather_results, result_of_first};
pub use sampler::EpochSampler;
pub use storage::{Location, Settings as StorageSettings};
pub use tensor::tensor_of;
pub use transforms::{
    AutoAugment, Evaluate, FinetuneTransform, IMAGENET_MEAN, IMAGENET_STD, Normalize, Operation,
    POLICY_V0, Policy, PolicyStep, PretrainTransform, RandomErasing, RandomHorizontalFlip,
    RandomResizedCrop, StepKind, Transform, TrivialAugmentWide,
};
pub use user_cache::user_cache;

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
