//! One sample, whatever state its file is in.

use super::super::corrupt::{CorruptFiles, outcome};
use super::super::dataset::Fetch;
use super::source::{SampleIndex, Source};
use crate::rng::{Rng, purpose};
use crate::Result;

/// Everything a sample depends on.
pub(super) struct SampleMaker<S> {
    pub source: S,
    pub corrupt: CorruptFiles,
}

impl<S: Source> SampleMaker<S> {
    /// Makes the sample for `slot` of `epoch`: of its image, or of a substitute if that is
    /// corrupt. Returns the index of the one taken; none where there is no substitute. What was
    /// `begun` is of its image.
    ///
    /// # Errors
    /// [`Error::Data`] when too many files are corrupt, [`Error::Storage`] where the store fails.
    pub(super) fn make(
        &self,
        slot: SampleIndex,
        epoch: u64,
        mut begun: Option<Fetch>,
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
            match self.attempt(index, begun.take(), &mut rng, sample)? {
                Ok(()) => break,
                Err(reason) => self.corrupt.add(index, self.source.name(index), reason)?,
            }
        }
        Ok(Some(index))
    }

    /// Reads, decodes and transforms image `index`, or says why that can't be done.
    ///
    /// # Errors
    /// [`Error::Storage`] where the store fails: that is no fault of the image, in whose place
    /// another run would have none.
    fn attempt(
        &self,
        index: usize,
        begun: Option<Fetch>,
        rng: &mut Rng,
        sample: &mut S::Sample,
    ) -> Result<std::result::Result<(), String>> {
        outcome(|| match begun {
            Some(begun) => self.source.make_of(index, begun, rng, sample),
            None => self.source.make(index, rng, sample),
        })
    }
}
