#pragma once

#include <chrono>

namespace gloo {

namespace transport {
class UnboundBuffer;
}

// Never made here, and called only in an inline function that is not called.
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
