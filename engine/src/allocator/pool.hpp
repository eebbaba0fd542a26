// Memory of large tensors, kept from one step of training to the next.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace spark {

// Blocks of their own from the system for large tensors, given back or kept for tensors of the
// same size.
//
// Fetching pages from the system costs a fifth of a training step; a heap that keeps everything
// takes a third more than is ever in use, in gaps between the tensors that stay. Here so much is
// kept that what is used and what is kept together never exceed the most that has been in use at
// once. A step frees, towards its end, what the next one asks for again, so that hardly anything
// is fetched, and the process is as large as its tensors are at their most.
class Pool final : public c10::Allocator {
 public:
  static Pool& instance();

  c10::DataPtr allocate(std::size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  // The most bytes that large tensors took since the last call.
  std::size_t peak();
  void copy_data(void* to, const void* from, std::size_t bytes) const override;

 private:
  static void release(void* start);

  // The start of a block of `size` bytes.
  void* take(std::size_t size);
  // Memory from the system.
  char* map(std::size_t size);
  // The front of the smallest kept stretch that is large enough, or null.
  char* reuse(std::size_t size);
  // Keeps a stretch, as one with those that it touches.
  void keep(char* start, std::size_t size);
  // Gives stretches back, small ones first, until no more than `bytes` are kept.
  void trim(std::size_t bytes);

  using Stretches = std::map<char*, std::size_t>;
  // Takes a stretch out of what is kept.
  void drop(Stretches::iterator stretch);

  std::mutex mutex_;
  // Sizes of the blocks in use, by their start.
  std::unordered_map<void*, std::size_t> used_;
  // Free memory by where it begins, and the same by size.
  Stretches kept_;
  std::set<std::pair<std::size_t, char*>> by_size_;
  std::size_t used_bytes_ = 0;
  std::size_t kept_bytes_ = 0;
  // The most that was in use at once, ever and since peak().
  std::size_t most_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace spark
