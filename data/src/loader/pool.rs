//! Memory of batches that goes round.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ndarray::Array4;

/// The images of a batch, `[N, C, H, W]`.
///
/// When dropped, their memory goes back to the loader they come from, for a later batch: the
/// kernel clears memory that is new to a process page by page, which takes as long as a third of
/// the work on a small photograph.
pub struct Images {
    array: Array4<f32>,
    home: Weak<Pool>,
}

/// Arrays that wait for a batch.
#[derive(Default)]
pub(super) struct Pool {
    arrays: Mutex<Vec<Array4<f32>>>,
}

impl Pool {
    /// An array of `shape` that holds zeros or images of earlier batches.
    pub(super) fn take(self: &Arc<Self>, shape: [usize; 4]) -> Images {
        let mut arrays = self.arrays.lock().unwrap_or_else(PoisonError::into_inner);
        // Of another size is none, or what an epoch's last batch left.
        arrays.retain(|array| array.shape() == shape);
        let array = arrays.pop();
        drop(arrays);
        let array = array.unwrap_or_else(|| Array4::zeros(shape));
        Images { array, home: Arc::downgrade(self) }
    }
}

impl From<Array4<f32>> for Images {
    fn from(array: Array4<f32>) -> Self {
        Images { array, home: Weak::new() }
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        if let Some(pool) = self.home.upgrade() {
            let array = std::mem::take(&mut self.array);
            pool.arrays.lock().unwrap_or_else(PoisonError::into_inner).push(array);
        }
    }
}

impl Deref for Images {
    type Target = Array4<f32>;

    fn deref(&self) -> &Array4<f32> {
        &self.array
    }
}

impl DerefMut for Images {
    fn deref_mut(&mut self) -> &mut Array4<f32> {
        &mut self.array
    }
}

impl Clone for Images {
    fn clone(&self) -> Self {
        self.array.clone().into()
    }
}

impl PartialEq for Images {
    fn eq(&self, other: &Self) -> bool {
        self.array == other.array
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.array.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_and_is_taken_again() {
        let pool = Arc::new(Pool::default());
        let mut images = pool.take([2, 1, 3, 3]);
        images.fill(7.0);
        let place = images.as_ptr();
        drop(images);
        let again = pool.take([2, 1, 3, 3]);
        assert_eq!((again.as_ptr(), again[[1, 0, 2, 2]]), (place, 7.0));
        // A second at the same time has memory of its own, and so has a copy.
        let second = pool.take([2, 1, 3, 3]);
        assert!(second.as_ptr() != place && second.iter().all(|&v| v == 0.0));
        let copy = again.clone();
        drop((again, second, copy));
        assert_eq!(pool.arrays.lock().unwrap().len(), 2);
        // Another size makes way for none of the old one.
        assert_eq!(pool.take([1, 1, 3, 3]).shape(), [1, 1, 3, 3]);
        assert_eq!(pool.arrays.lock().unwrap().len(), 1);
    }

    #[test]
    fn images_outlive_their_loader() {
        let pool = Arc::new(Pool::default());
        let images = pool.take([1, 1, 2, 2]);
        drop(pool);
        assert_eq!(*images, Array4::<f32>::zeros((1, 1, 2, 2)));
    }
}
