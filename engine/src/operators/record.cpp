#include "spark-engine/src/operators/record.hpp"

#include <ATen/record_function.h>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

#include "spark-engine/src/bridge.rs.h"

namespace spark {

namespace {

using Clock = std::chrono::steady_clock;

struct Calls {
  std::uint64_t calls = 0;
  std::uint64_t leaves = 0;
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
  bool leaf = true;
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
  if (frame->caller != nullptr) {
    frame->caller->inside += spent;
    frame->caller->leaf = false;
  }
  auto& all = recording();
  const std::lock_guard lock(all.mutex);
  auto& calls = all.calls[function.name()];
  calls.calls += 1;
  calls.leaves += frame->leaf ? 1 : 0;
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
    list.push_back(OperatorCalls{name, calls.calls, calls.leaves, calls.nanoseconds});
  }
  return list;
}

}  // namespace spark
