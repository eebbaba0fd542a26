//! Kernels and maps in channels-last memory.

use tch::{Device, Tensor};

use crate::kernels;

/// `tensor` in channels-last memory; itself if it lies there.
pub(super) fn channels_last(tensor: &Tensor) -> Tensor {
    if is_channels_last(tensor) {
        return tensor.shallow_clone();
    }
    let learned = tensor.requires_grad() && kernels::records_gradients();
    if !learned && tensor.device() == Device::Cpu && tensor.is_contiguous() {
        return kernels::channels_last(tensor);
    }
    tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Whether a map or kernel lies in channels-last memory; the stride of a side of one
/// element says nothing.
fn is_channels_last(tensor: &Tensor) -> bool {
    let (size, stride) = (tensor.size(), tensor.stride());
    let mut dense = 1;
    [1, 3, 2, 0].into_iter().all(|side| {
        let fits = size[side] == 1 || stride[side] == dense;
        dense *= size[side];
        fits
    })
}

/// The kernel `[out, in, kh, kw]` as a matrix `[out, kh·kw·in]`: a view where kernels
/// lie in channels-last memory, or are 1×1.
pub(super) fn as_matrix(weight: &Tensor) -> Tensor {
    weight.permute([0, 2, 3, 1]).flatten(1, 3)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn the_memory_of_a_tensor_is_told_from_its_strides() {
        let plain = |size: [i64; 4]| {
            let count = size.iter().product::<i64>();
            Tensor::arange(count, (Kind::Float, Device::Cpu)).view(size)
        };
        for (size, is_last) in [
            ([2, 3, 4, 5], false),
            ([2, 3, 1, 1], true),
            ([2, 1, 4, 5], true),
            ([1, 3, 1, 5], false),
            ([1, 1, 1, 1], true),
        ] {
            let tensor = plain(size);
            assert_eq!(is_channels_last(&tensor), is_last, "{size:?}");
            let laid_out = channels_last(&tensor);
            assert!(is_channels_last(&laid_out) && laid_out.size() == size, "{size:?}");
            // What lies there already is not copied.
            assert_eq!(laid_out.data_ptr() == tensor.data_ptr(), is_last, "{size:?}");
        }
        for kind in [Kind::BFloat16, Kind::Float, Kind::Double] {
            let kernel = plain([3, 5, 3, 2]).to_kind(kind);
            let learned = kernel.detach().set_requires_grad(true);
            for laid_out in [channels_last(&kernel), channels_last(&learned)] {
                assert!(is_channels_last(&laid_out) && laid_out.equal(&kernel), "{kind:?}");
            }
        }
        // Without gradients their memory is taken again, but not while somebody has it.
        tch::no_grad(|| {
            let (large, small) = (plain([3, 5, 3, 2]), plain([2, 4, 2, 2]) + 100);
            let [first, second] = [&large, &small].map(channels_last);
            assert!(first.equal(&large) && second.equal(&small));
            drop(second);
            let third = channels_last(&(&small * 2));
            assert!(is_channels_last(&third) && third.equal(&(&small * 2)) && first.equal(&large));
        });
        let part = channels_last(&plain([2, 4, 4, 4])).narrow(1, 0, 3);
        assert!(!is_channels_last(&part), "its channels lie among others");
    }
}
