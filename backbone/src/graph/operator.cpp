#include "spark-backbone/src/graph/operator.hpp"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/scalar_tensor.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spark-backbone/src/graph/operator.rs.h"

namespace spark::graph {

struct OperatorHandle::State {
  c10::OperatorHandle handle;
};

OperatorHandle::OperatorHandle(std::unique_ptr<State> state) : state_(std::move(state)) {}
OperatorHandle::~OperatorHandle() = default;

struct Call::State {
  c10::OperatorHandle handle;
  std::vector<c10::IValue> stack;
  std::vector<at::Tensor> items;
  std::vector<at::Tensor> results;

  // The schema's argument that is pushed next.
  const c10::Argument& next() const {
    const auto& arguments = handle.schema().arguments();
    TORCH_CHECK(stack.size() < arguments.size(), handle.schema().name(), " takes ",
                arguments.size(), " arguments");
    return arguments[stack.size()];
  }
};

namespace {

// What an optional is an optional of.
c10::TypePtr unwrapped(const c10::TypePtr& type) {
  const auto optional = type->cast<c10::OptionalType>();
  return optional ? optional->getElementType() : type;
}

bool is_float(const c10::TypePtr& type) {
  return unwrapped(type)->kind() == c10::TypeKind::FloatType;
}

bool is_tensor(const c10::TypePtr& type) {
  return unwrapped(type)->kind() == c10::TypeKind::TensorType;
}

// A number where a tensor may stand: it does not widen the other operand.
at::Tensor wrapped(const at::Scalar& number) {
  auto tensor = at::scalar_tensor(number, number.isFloatingPoint() ? at::kDouble : at::kLong);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

bool is_list(const c10::TypePtr& type) {
  return unwrapped(type)->kind() == c10::TypeKind::ListType;
}

bool holds_optionals(const c10::TypePtr& type) {
  const auto list = unwrapped(type)->cast<c10::ListType>();
  return list && list->getElementType()->kind() == c10::TypeKind::OptionalType;
}

bool holds_floats(const c10::TypePtr& type) {
  const auto list = unwrapped(type)->cast<c10::ListType>();
  return list && list->getElementType()->kind() == c10::TypeKind::FloatType;
}

template <typename T>
c10::List<T> to_list(rust::Slice<const T> values) {
  c10::List<T> list;
  list.reserve(values.size());
  for (const auto value : values) list.push_back(value);
  return list;
}

}  // namespace

Call::Call(const OperatorHandle& handle) : state_(new State{handle.state().handle, {}, {}, {}}) {}
Call::~Call() = default;

void Call::push_default() {
  const auto& argument = state_->next();
  const auto& value = argument.default_value();
  TORCH_CHECK(value.has_value(), "its argument ", argument.name(), " is missing");
  state_->stack.push_back(*value);
}

void Call::push_none() { state_->stack.emplace_back(); }

void Call::push_tensor(const at::Tensor& tensor) { state_->stack.emplace_back(tensor); }

void Call::push_int(std::int64_t value) {
  const auto& type = state_->next().type();
  if (is_float(type)) return push_float(static_cast<double>(value));
  if (is_tensor(type)) return push_tensor(wrapped(value));
  // Schemas write [2] for what may be given once for all sides.
  if (is_list(type)) return push_ints(rust::Slice<const std::int64_t>(&value, 1));
  state_->stack.emplace_back(value);
}

void Call::push_float(double value) {
  if (is_tensor(state_->next().type())) return push_tensor(wrapped(value));
  state_->stack.emplace_back(value);
}

void Call::push_bool(bool value) { state_->stack.emplace_back(value); }

void Call::push_text(rust::Str value) { state_->stack.emplace_back(std::string(value)); }

void Call::push_ints(rust::Slice<const std::int64_t> values) {
  if (holds_floats(state_->next().type())) {
    c10::List<double> list;
    for (const auto value : values) list.push_back(static_cast<double>(value));
    state_->stack.emplace_back(std::move(list));
    return;
  }
  state_->stack.emplace_back(to_list(values));
}

void Call::push_floats(rust::Slice<const double> values) {
  state_->stack.emplace_back(to_list(values));
}

void Call::push_bools(rust::Slice<const bool> values) {
  state_->stack.emplace_back(to_list(values));
}

void Call::item(const at::Tensor& tensor) { state_->items.push_back(tensor); }

void Call::push_items() {
  auto items = std::exchange(state_->items, {});
  if (holds_optionals(state_->next().type())) {
    c10::List<std::optional<at::Tensor>> list;
    for (auto& item : items) {
      list.push_back(item.defined() ? std::optional(std::move(item)) : std::nullopt);
    }
    state_->stack.emplace_back(std::move(list));
    return;
  }
  state_->stack.emplace_back(c10::List<at::Tensor>(at::ArrayRef<at::Tensor>(items)));
}

void Call::run() {
  state_->handle.callBoxed(&state_->stack);
  for (const auto& value : state_->stack) {
    if (value.isTensor()) {
      state_->results.push_back(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) state_->results.push_back(tensor);
    }
  }
  state_->stack.clear();
}

std::size_t Call::results() const { return state_->results.size(); }

at::Tensor* Call::result(std::size_t index) const {
  return new at::Tensor(state_->results.at(index));
}

std::unique_ptr<OperatorHandle> find_operator(rust::Str name, rust::Str overload) {
  auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(std::string(name).c_str(),
                                                               std::string(overload).c_str());
  return std::make_unique<OperatorHandle>(
      std::make_unique<OperatorHandle::State>(OperatorHandle::State{std::move(handle)}));
}

rust::Vec<rust::String> argument_names(const OperatorHandle& handle) {
  rust::Vec<rust::String> names;
  for (const auto& argument : handle.state().handle.schema().arguments()) names.push_back(argument.name());
  return names;
}

std::unique_ptr<Call> new_call(const OperatorHandle& handle) {
  return std::make_unique<Call>(handle);
}

}  // namespace spark::graph
