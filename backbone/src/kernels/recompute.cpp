// Tensors whose memory is given back although the backward pass will ask for them.
#include <ATen/SavedTensorHooks.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/StorageImpl.h>
#include <c10/util/Exception.h>

#include <memory>
#include <optional>
#include <utility>

#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/recipe.hpp"

namespace spark::kernels {

namespace {

// The memory that is to come back, and how.
struct Forgotten {
  // Weak: when no node of the graph needs the tensor any more, nothing is made again.
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  std::vector<std::int64_t> sizes, strides;
  std::optional<rust::Box<Recipe>> recipe;

  void remember() {
    const auto once = std::exchange(recipe, std::nullopt);
    const auto to = storage.lock();
    if (!once || !to) return;
    auto again = follow(**once);
    // Somebody else's memory cannot be taken.
    if (again.storage().use_count() > 1) again = again.clone();
    TORCH_CHECK(again.sizes() == sizes && again.strides() == strides &&
                    again.storage_offset() == 0 && again.storage().nbytes() == to->nbytes(),
                "made again, a tensor of ", at::IntArrayRef(sizes), " with strides ",
                at::IntArrayRef(strides), " is ", again.sizes(), " with strides ",
                again.strides());
    const auto* from = again.storage().unsafeGetStorageImpl();
    to->set_data_ptr_noswap(const_cast<c10::StorageImpl*>(from)->set_data_ptr(
        c10::DataPtr(nullptr, again.device())));
  }
};

}  // namespace

bool records_gradients() {
  return at::GradMode::is_enabled();
}

void forget(const at::Tensor& tensor, const at::Tensor& result, rust::Box<Recipe> recipe) {
  if (!at::GradMode::is_enabled() || !result.requires_grad() || result.is_leaf()) return;
  if (autocasts()) return;
  // The host keeps what operators save in its own way, such as making it again from the input.
  if (!at::SavedTensorDefaultHooks::get_tls_state().stack.empty()) return;
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  // A view of a part shares its memory with what is kept.
  const auto filled = tensor.numel() * static_cast<std::int64_t>(tensor.element_size());
  if (static_cast<std::int64_t>(tensor.storage().nbytes()) != filled ||
      !tensor.is_non_overlapping_and_dense()) {
    return;
  }
  auto forgotten = std::make_shared<Forgotten>(
      Forgotten{tensor.storage().getWeakStorageImpl(), tensor.sizes().vec(),
                tensor.strides().vec(), std::move(recipe)});
  result.register_hook([forgotten](const at::Tensor&) { forgotten->remember(); });
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, tensor.device()));
}

}  // namespace spark::kernels
