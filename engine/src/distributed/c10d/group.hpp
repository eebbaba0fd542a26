// What bridge.rs calls; light enough for the code that cxx generates.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "rust/cxx.h"

namespace c10d {
class Logger;
class ProcessGroup;
class Reducer;
class Store;
}  // namespace c10d

namespace spark {

// Shared with Rust, which defines it.
struct Rendezvous;
struct Timings;

// Processes that compute together: c10d's store and process group. Every function waits until
// the operation is complete (on a CUDA device: until it stands in the stream's queue), and throws
// where c10d does.
class Group {
 public:
  Group(c10::intrusive_ptr<c10d::Store> store, c10::intrusive_ptr<c10d::ProcessGroup> processes);
  ~Group();

  // Of every operation from now on, on the processor.
  void set_timeout(std::int64_t timeout_ms) const;

  // NCCL for tensors on CUDA devices.
  void add_nccl(std::int64_t timeout_ms) const;

  // In place, over all processes.
  void sum(const at::Tensor& tensor) const;
  void max(const at::Tensor& tensor) const;
  // Takes rank 0's values, in place.
  void broadcast(const at::Tensor& tensor) const;
  // Everybody's tensor, all of one shape, stacked by rank.
  std::unique_ptr<at::Tensor> gather(const at::Tensor& tensor) const;

  const c10::intrusive_ptr<c10d::ProcessGroup>& processes() const { return processes_; }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<c10d::ProcessGroup> processes_;
};

// A name that the first launch of a launcher's store drew, the same for all that follow there.
rust::String launch_name(const Rendezvous& rendezvous);

// Meets the other processes.
std::unique_ptr<Group> connect(const Rendezvous& rendezvous);

// Tensors on the way into C++.
class TensorList {
 public:
  void push(const at::Tensor& tensor) { tensors.push_back(tensor); }
  std::vector<at::Tensor> tensors;
};
std::unique_ptr<TensorList> tensor_list();

// c10d's Reducer, as DistributedDataParallel uses it.
class GradientReducer {
 public:
  GradientReducer(const Group& group, std::vector<at::Tensor> parameters,
                  rust::Slice<const rust::String> names);
  ~GradientReducer();

  // Before the forward pass of a step.
  void begin() const;
  // Runs backward; the gradients of a step's last pass are averaged.
  void backward(const at::Tensor& loss, bool last) const;
  // Sizes of the buckets in bytes.
  rust::Vec<std::int64_t> buckets() const;
  // Of the last steps that c10d sampled.
  Timings timings() const;

 private:
  std::shared_ptr<c10d::Reducer> reducer_;
  std::shared_ptr<c10d::Logger> logger_;
};
std::unique_ptr<GradientReducer> gradient_reducer(const Group& group, const TensorList& parameters,
                                                  rust::Slice<const rust::String> names);

// Leaves the tensor without a gradient.
inline void undefine_gradient(const at::Tensor& tensor) { tensor.mutable_grad().reset(); }

// Batch norm of [N, C, …] over the batches of all processes; gradients flow to every process's
// input.
std::unique_ptr<at::Tensor> sync_batch_norm(const Group& group, const at::Tensor& input,
                                            const at::Tensor& weight, const at::Tensor& bias,
                                            const at::Tensor& running_mean,
                                            const at::Tensor& running_var, double momentum,
                                            double eps);

}  // namespace spark
