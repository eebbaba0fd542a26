// Tensors whose storage is freed although the backward pass reads them: they are recomputed.
#include <ATen/SavedTensorHooks.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/StorageImpl.h>
#include <c10/util/Exception.h>

#include <memory>
#include <optional>
#include <utility>

#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/recompute_fn.hpp"

namespace spark::kernels {

namespace {

// The storage that is to be restored, and how.
struct FreedStorage {
  // Weak: when no node of the graph needs the tensor any more, nothing is recomputed.
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  std::vector<std::int64_t> sizes, strides;
  std::optional<rust::Box<RecomputeFn>> recompute;

  void restore() {
    const auto once = std::exchange(recompute, std::nullopt);
    const auto to = storage.lock();
    if (!once || !to) return;
    auto made = call(**once);
    // Somebody else's memory cannot be taken.
    if (made.storage().use_count() > 1) made = made.clone();
    TORCH_CHECK(made.sizes() == sizes && made.strides() == strides &&
                    made.storage_offset() == 0 && made.storage().nbytes() == to->nbytes(),
                "recomputed, a tensor of ", at::IntArrayRef(sizes), " with strides ",
                at::IntArrayRef(strides), " is ", made.sizes(), " with strides ", made.strides());
    const auto* from = made.storage().unsafeGetStorageImpl();
    to->set_data_ptr_noswap(const_cast<c10::StorageImpl*>(from)->set_data_ptr(
        c10::DataPtr(nullptr, made.device())));
  }
};

}  // namespace

bool records_gradients() {
  return at::GradMode::is_enabled();
}

void free_and_recompute(const at::Tensor& tensor, const at::Tensor& result,
                        rust::Box<RecomputeFn> recompute) {
  if (!at::GradMode::is_enabled() || !result.requires_grad() || result.is_leaf()) return;
  if (autocasts()) return;
  // The host keeps what operators save in its own way, such as recomputing it from the input.
  if (!at::SavedTensorDefaultHooks::get_tls_state().stack.empty()) return;
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  // A view of a part shares its memory with what is kept.
  const auto filled = tensor.numel() * static_cast<std::int64_t>(tensor.element_size());
  if (static_cast<std::int64_t>(tensor.storage().nbytes()) != filled ||
      !tensor.is_non_overlapping_and_dense()) {
    return;
  }
  auto freed = std::make_shared<FreedStorage>(
      FreedStorage{tensor.storage().getWeakStorageImpl(), tensor.sizes().vec(),
                   tensor.strides().vec(), std::move(recompute)});
  result.register_hook([freed](const at::Tensor&) { freed->restore(); });
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, tensor.device()));
}

}  // namespace spark::kernels
