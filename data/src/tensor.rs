//! Batches as tensors.

// The memory of a new tensor is written to, see below.
#![allow(unsafe_code)]

use ndarray::{Array, Dimension};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// A copy of `array` as a float32 tensor on the processor, made by this thread alone: libtorch's
/// ways to copy fill the tensor with zeros first, on all of its threads, which wait for cores that
/// are decoding images.
///
/// # Errors
/// [`Error::Invalid`] with what libtorch says, if it has no memory for it.
pub fn tensor_of<D: Dimension>(array: &Array<f32, D>) -> Result<Tensor> {
    let array = array.as_standard_layout();
    let size: Vec<i64> = array.shape().iter().map(|&side| side as i64).collect();
    let values = array.as_slice().expect("the layout is the standard one");
    let tensor = Tensor::f_empty(&size, (Kind::Float, Device::Cpu))
        .map_err(|e| Error::invalid("batch", e, "libtorch must take it"))?;
    // The new tensor is contiguous, has as many floats as the array, and nobody else knows it.
    unsafe {
        let memory = tensor.data_ptr().cast::<f32>();
        std::ptr::copy_nonoverlapping(values.as_ptr(), memory, values.len());
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the order in which the array's values lie.
    #[test]
    fn a_batch_keeps_its_values_and_their_places() {
        let numbers = ndarray::Array4::from_shape_fn((2, 3, 4, 5), |(n, c, h, w)| {
            (((n * 3 + c) * 4 + h) * 5 + w) as f32
        });
        let transposed = numbers.clone().permuted_axes([0, 2, 3, 1]);
        let expected = Tensor::arange(120, (Kind::Float, Device::Cpu)).view([2, 3, 4, 5]);
        assert_eq!(tensor_of(&numbers).unwrap(), expected);
        assert_eq!(tensor_of(&transposed).unwrap(), expected.permute([0, 2, 3, 1]));
        let empty = ndarray::Array4::<f32>::zeros((0, 3, 4, 5));
        assert_eq!(tensor_of(&empty).unwrap().size(), [0, 3, 4, 5]);
    }
}
