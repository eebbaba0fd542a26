// libtorch's operators by name, through its dispatcher: what operator.rs calls; light enough for the
// code that cxx generates. Every function throws where libtorch does.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "rust/cxx.h"

namespace spark::graph {

// One operator's schema and its kernels.
class OperatorHandle {
 public:
  struct State;
  explicit OperatorHandle(std::unique_ptr<State> state);
  ~OperatorHandle();
  const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

// A call that is being put together, argument by argument in the schema's order, and then its
// results.
class Call {
 public:
  explicit Call(const OperatorHandle& handle);
  ~Call();

  // The schema's default.
  void push_default();
  void push_none();
  void push_tensor(const at::Tensor& tensor);
  void push_int(std::int64_t value);
  void push_float(double value);
  void push_bool(bool value);
  void push_text(rust::Str value);
  void push_ints(rust::Slice<const std::int64_t> values);
  void push_floats(rust::Slice<const double> values);
  void push_bools(rust::Slice<const bool> values);
  // The next tensors of a list; an undefined one is none.
  void item(const at::Tensor& tensor);
  void push_items();

  void run();
  // The tensors of all results, one after another.
  std::size_t results() const;
  at::Tensor* result(std::size_t index) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The operator, such as aten::add and Tensor; throws if this libtorch has none of that name.
std::unique_ptr<OperatorHandle> find_operator(rust::Str name, rust::Str overload);

// The names of its arguments, in order.
rust::Vec<rust::String> argument_names(const OperatorHandle& handle);

std::unique_ptr<Call> new_call(const OperatorHandle& handle);

}  // namespace spark::graph
