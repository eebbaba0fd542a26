#include "spark-engine/src/operators/record.hpp"

#include <ATen/record_function.h>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "spark-engine/src/bridge.rs.h"

namespace spark {

namespace {

using Clock = std::chrono::steady_clock;

// Operators that only describe memory anew, or get some, and launch nothing.
const std::unordered_set<std::string_view>& idle() {
  static const std::unordered_set<std::string_view> names{
      "aten::alias",          "aten::as_strided", "aten::detach",      "aten::detach_",
      "aten::empty",          "aten::empty_like", "aten::empty_strided", "aten::expand",
      "aten::expand_as",      "aten::narrow",     "aten::permute",     "aten::_reshape_alias",
      "aten::resize_",        "aten::resolve_conj", "aten::select",    "aten::slice",
      "aten::split",          "aten::squeeze",    "aten::t",           "aten::transpose",
      "aten::unbind",         "aten::_unsafe_view", "aten::unsqueeze", "aten::view",
      "aten::result_type",    "aten::view_as",    "detach",            "detach_"};
  return names;
}

bool does_work(std::string_view name) {
  // Of the backward pass's nodes, which have no namespace or autograd's, only ours work themselves.
  if (name.find("::") == name.npos || name.starts_with("autograd::")) return false;
  return name != "torch::autograd::AccumulateGrad" && idle().count(name) == 0;
}

struct Calls {
  std::uint64_t calls = 0;
  std::uint64_t launches = 0;
  std::int64_t nanoseconds = 0;
};

// libtorch's callbacks are plain functions without data of their own, so that what they write to
// can only be found by its name.
struct Recording {
  std::mutex mutex;
  std::optional<at::CallbackHandle> handle;
  std::map<std::string, Calls> calls;
};

Recording& recording() {
  static Recording the_one;
  return the_one;
}

// A call that has not ended, on the stack of its thread.
struct Frame : at::ObserverContext {
  explicit Frame(Frame* outer) : caller(outer), start(Clock::now()) {}
  Frame* caller;
  Clock::time_point start;
  std::int64_t inside = 0;
  // Whether an operator within did the work.
  bool delegated = false;
};

thread_local Frame* innermost = nullptr;

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction&) {
  auto frame = std::make_unique<Frame>(innermost);
  innermost = frame.get();
  return frame;
}

void leave(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* frame = static_cast<Frame*>(context);
  const auto spent =
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - frame->start).count();
  innermost = frame->caller;
  const bool works = does_work(function.name());
  if (frame->caller != nullptr) {
    frame->caller->inside += spent;
    frame->caller->delegated |= works || frame->delegated;
  }
  auto& all = recording();
  const std::lock_guard lock(all.mutex);
  auto& calls = all.calls[function.name()];
  calls.calls += 1;
  calls.launches += works && !frame->delegated ? 1 : 0;
  calls.nanoseconds += spent - frame->inside;
}

}  // namespace

void start_recording() {
  auto& all = recording();
  const std::lock_guard lock(all.mutex);
  if (all.handle) throw std::runtime_error("operator calls are being recorded already");
  all.calls.clear();
  all.handle = at::addGlobalCallback(
      at::RecordFunctionCallback(enter, leave)
          .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
}

rust::Vec<OperatorCalls> stop_recording() {
  auto& all = recording();
  std::optional<at::CallbackHandle> handle;
  {
    const std::lock_guard lock(all.mutex);
    handle = std::exchange(all.handle, std::nullopt);
  }
  if (handle) at::removeCallback(*handle);
  const std::lock_guard lock(all.mutex);
  rust::Vec<OperatorCalls> list;
  for (const auto& [name, calls] : all.calls) {
    list.push_back(OperatorCalls{name, calls.calls, calls.launches, calls.nanoseconds});
  }
  return list;
}

}  // namespace spark
