// Operator calls of libtorch, counted and timed by its own RecordFunction callbacks.
#pragma once

#include "rust/cxx.h"

namespace spark {

struct OperatorCalls;

// Begins to record the calls of all threads. Throws if a recording is under way.
void start_recording();

// Ends the recording: what was called since, in the order of names.
rust::Vec<OperatorCalls> stop_recording();

}  // namespace spark
