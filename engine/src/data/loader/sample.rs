//! One sample, whatever state its file is in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::super::corrupt::CorruptFiles;
use super::super::dataset::Dataset;
use super::super::sampler::EpochSampler;
use super::super::transforms::Transform;
use crate::rng::{Rng, purpose};
use crate::{Error, Result};

/// Everything a sample depends on.
pub(super) struct SampleMaker {
    pub dataset: Arc<Dataset>,
    pub transform: Arc<dyn Transform>,
    pub sampler: EpochSampler,
    pub corrupt: CorruptFiles,
}

impl SampleMaker {
    /// `[C, H, W]` of a sample.
    pub(super) fn shape(&self) -> [usize; 3] {
        let (height, width) = self.transform.size();
        [self.transform.channels(), height, width]
    }

    /// Writes the sample at `position` of `epoch` into `out`: image `index`, or a substitute if
    /// that is corrupt. Returns the index of the one taken.
    ///
    /// # Errors
    /// [`Error::Data`] when too many files are corrupt.
    pub(super) fn make(
        &self,
        mut index: usize,
        epoch: u64,
        position: u64,
        out: &mut [f32],
    ) -> Result<usize> {
        let seed = self.sampler.seed();
        // This ends: each attempt finds a good image or a new corrupt one, or goes by a known
        // one, and a data set whose every image is corrupt is an error of `corrupt.add`.
        for attempt in 0.. {
            if attempt > 0 {
                let stream = [purpose::SUBSTITUTE, epoch, position, attempt];
                index = Rng::new(seed, &stream).below(self.dataset.len());
            }
            if self.corrupt.contains(index) {
                continue;
            }
            let mut rng = Rng::new(seed, &[purpose::AUGMENT, epoch, position]);
            match self.attempt(index, &mut rng, out) {
                Ok(()) => break,
                Err(reason) => self.corrupt.add(index, self.dataset.name(index), reason)?,
            }
        }
        Ok(index)
    }

    /// Reads, decodes and transforms image `index`, or says why that can't be done. Decoders meet
    /// arbitrary bytes, so a panic in one is the file's fault like any other.
    fn attempt(
        &self,
        index: usize,
        rng: &mut Rng,
        out: &mut [f32],
    ) -> std::result::Result<(), String> {
        let made = catch_unwind(AssertUnwindSafe(|| {
            self.transform.apply(&self.dataset.image(index)?, rng, out)
        }));
        match made {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::Image { problem, .. })) => Err(problem),
            Ok(Err(Error::Io { source, .. })) => Err(source.to_string()),
            Ok(Err(other)) => Err(other.to_string()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Err(format!("reading it panicked: {text}"))
            }
        }
    }
}
