//! One sample, whatever state its file is in.

use super::super::corrupt::{CorruptFiles, outcome};
use super::source::{SampleIndex, Source};
use crate::Result;
use crate::rng::{Rng, purpose};

/// Everything a sample depends on.
pub(super) struct SampleMaker<S> {
    pub source: S,
    pub corrupt: CorruptFiles,
}

impl<S: Source> SampleMaker<S> {
    /// Makes the sample for `slot` of `epoch`: of its image, or of a substitute if that is
    /// corrupt. Returns the index of the one taken; none where there is no substitute.
    ///
    /// # Errors
    /// [`Error::Data`] when too many files are corrupt.
    pub(super) fn make(
        &self,
        slot: SampleIndex,
        epoch: u64,
        sample: &mut S::Sample,
    ) -> Result<Option<usize>> {
        let (seed, position) = (self.source.seed(), slot.position);
        let mut index = slot.index;
        // This ends: each attempt finds a good image or a new corrupt one, or goes by a known
        // one, and too many corrupt ones, found by whichever thread, are an error.
        for attempt in 0.. {
            if attempt > 0 {
                let stream = [purpose::SUBSTITUTE, epoch, position, attempt];
                match self.source.substitute(&mut Rng::new(seed, &stream)) {
                    Some(other) => index = other,
                    None => return Ok(None),
                }
            }
            if self.corrupt.contains(index)? {
                continue;
            }
            let mut rng = Rng::new(seed, &[purpose::AUGMENT, epoch, position]);
            match self.attempt(index, &mut rng, sample) {
                Ok(()) => break,
                Err(reason) => self.corrupt.add(index, self.source.name(index), reason)?,
            }
        }
        Ok(Some(index))
    }

    /// Reads, decodes and transforms image `index`, or says why that can't be done.
    fn attempt(
        &self,
        index: usize,
        rng: &mut Rng,
        sample: &mut S::Sample,
    ) -> std::result::Result<(), String> {
        outcome(|| self.source.make(index, rng, sample))
    }
}
