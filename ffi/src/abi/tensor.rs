//! Tensors for hosts that have no libtorch at hand.

use std::slice;

use backbone::plugin::abi::{self, RawTensor};
use backbone::{Error, Result};
use tch::{Device, Kind, Tensor};

use crate::edge::{borrow_tensor, check_place, fallible, give_tensor, quietly, write};

fallible! {
    fn spark_tensor_create(
        data: *const f32,
        shape: *const i64,
        dims: usize,
        tensor: *mut *mut RawTensor,
    ) as TensorCreate {
        check_place("data", data)?;
        check_place("shape", shape)?;
        check_place("tensor", tensor)?;
        // The caller vouches for the lengths of both.
        let shape = slice::from_raw_parts(shape, dims);
        let count = element_count(shape)?;
        let values = Tensor::from_slice(slice::from_raw_parts(data, count));
        write("tensor", tensor, give_tensor(values.f_reshape(shape)?))
    }
}

/// The product of the sizes.
fn element_count(shape: &[i64]) -> Result<usize> {
    let count = shape.iter().try_fold(1usize, |count, &size| {
        count.checked_mul(usize::try_from(size).ok()?).filter(|&count| count < 1 << 48)
    });
    count.ok_or_else(|| {
        let rule = "its sizes must not be negative, nor their product exceed memory";
        Error::invalid("shape", format!("{shape:?}"), rule)
    })
}

fallible! {
    fn spark_tensor_shape(
        tensor: *const RawTensor,
        shape: *mut i64,
        capacity: usize,
        dims: *mut usize,
    ) as TensorShape {
        check_place("dims", dims)?;
        if capacity > 0 {
            check_place("shape", shape)?;
        }
        let sizes = defined("tensor", &*borrow_tensor("tensor", tensor)?)?.size();
        for (index, size) in sizes.iter().take(capacity).enumerate() {
            shape.add(index).write(*size);
        }
        write("dims", dims, sizes.len())
    }

    fn spark_tensor_copy(tensor: *const RawTensor, data: *mut f32, count: usize) as TensorCopy {
        check_place("data", data)?;
        let tensor = borrow_tensor("tensor", tensor)?;
        let elements = defined("tensor", &tensor)?.numel();
        if count != elements {
            let rule = format!("the tensor has {elements} elements");
            return Err(Error::invalid("count", count, rule));
        }
        let values = tensor.f_detach()?.f_to_device_(Device::Cpu, Kind::Float, false, false)?;
        let values = values.f_contiguous()?;
        values.f_copy_data(slice::from_raw_parts_mut(data, count), count)?;
        Ok(())
    }
}

fn defined<'a>(operand: &str, tensor: &'a Tensor) -> Result<&'a Tensor> {
    let rule = "it must be a tensor with numbers";
    if tensor.defined() { Ok(tensor) } else { Err(Error::invalid(operand, "undefined", rule)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn spark_tensor_destroy(tensor: *mut RawTensor) {
    quietly(|| {
        if !tensor.is_null() {
            drop(unsafe { Tensor::from_ptr(tensor.cast()) });
        }
    });
}

// As in the module above.
const _: abi::TensorDestroy = spark_tensor_destroy;
