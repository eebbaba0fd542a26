// Inputs that a node of autograd's graph does not keep: it has their shape, and recomputes them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "spark-backbone/src/kernels/recompute_fn.hpp"

namespace spark::kernels {

class RecomputedInput : public torch::CustomClassHolder {
 public:
  RecomputedInput(const at::Tensor& tensor, rust::Box<RecomputeFn> recompute)
      : recompute_(std::move(recompute)),
        sizes_(tensor.sizes().vec()),
        strides_(tensor.strides().vec()),
        bytes_(std::max<std::size_t>(tensor.storage().nbytes(), 1)),
        options_(tensor.options()) {}

  // For the backward pass. `recompute_` holds on to tensors that nothing else needs after one that
  // keeps nothing.
  at::Tensor make() {
    TORCH_CHECK(recompute_, "a second backward pass needs retain_graph in the first");
    auto made = call(**recompute_);
    if (!torch::autograd::get_current_graph_task_keep_graph()) recompute_.reset();
    return made;
  }

  // A tensor for those who only ask for the shape: reading it gives zeros, and takes no memory.
  at::Tensor shape() const {
    void* zeros = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK(zeros != MAP_FAILED, "there is no address space for ", bytes_, " bytes");
    return at::from_blob(
        zeros, sizes_, strides_, [bytes = bytes_](void* start) { munmap(start, bytes); },
        options_);
  }

  // What a node kept under this name.
  static c10::intrusive_ptr<RecomputedInput> of(torch::autograd::AutogradContext* context) {
    return c10::static_intrusive_pointer_cast<RecomputedInput>(
        context->saved_data["recomputed"].toCapsule());
  }
  static void keep(torch::autograd::AutogradContext* context,
                   const c10::intrusive_ptr<RecomputedInput>& input) {
    context->saved_data["recomputed"] = c10::IValue::make_capsule(input);
  }

 private:
  // None once a backward pass has used it that keeps nothing.
  std::optional<rust::Box<RecomputeFn>> recompute_;
  std::vector<std::int64_t> sizes_, strides_;
  std::size_t bytes_;
  at::TensorOptions options_;
};

}  // namespace spark::kernels
