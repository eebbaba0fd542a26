#include "spark-engine/src/allocator/pool.hpp"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

namespace spark {

namespace {

// Blocks begin at multiples of this and are as large.
constexpr std::size_t kUnit = std::size_t{1} << 14;
// From this size on a tensor has a block of its own.
constexpr std::size_t kLarge = std::size_t{1} << 17;

bool begins_unit(const void* start) { return reinterpret_cast<std::uintptr_t>(start) % kUnit == 0; }

}  // namespace

Pool& Pool::instance() {
  // Never destroyed: tensors may outlive static objects.
  static auto* pool = new Pool;
  return *pool;
}

c10::DataPtr Pool::allocate(std::size_t bytes) {
  void* start = bytes < kLarge ? c10::alloc_cpu(bytes) : take((bytes + kUnit - 1) / kUnit * kUnit);
  c10::profiledCPUMemoryReporter().New(start, bytes);
  return {start, start, &release, c10::DeviceType::CPU};
}

c10::DeleterFnPtr Pool::raw_deleter() const { return &release; }

void Pool::copy_data(void* to, const void* from, std::size_t bytes) const {
  default_copy_data(to, from, bytes);
}

void Pool::release(void* start) {
  c10::profiledCPUMemoryReporter().Delete(start);
  if (begins_unit(start)) {
    auto& pool = instance();
    const std::lock_guard lock(pool.mutex_);
    if (const auto block = pool.used_.find(start); block != pool.used_.end()) {
      const auto size = block->second;
      pool.used_.erase(block);
      pool.used_bytes_ -= size;
      pool.keep(static_cast<char*>(start), size);
      return;
    }
  }
  c10::free_cpu(start);
}

std::size_t Pool::peak() {
  const std::lock_guard lock(mutex_);
  return std::exchange(peak_, used_bytes_);
}

void* Pool::take(std::size_t size) {
  const std::lock_guard lock(mutex_);
  char* start = reuse(size);
  if (start == nullptr) {
    // What is kept makes room for what is new.
    const auto used = used_bytes_ + size;
    trim(most_ > used ? most_ - used : 0);
    start = map(size);
  }
  used_.emplace(start, size);
  used_bytes_ += size;
  most_ = std::max(most_, used_bytes_);
  peak_ = std::max(peak_, used_bytes_);
  return start;
}

char* Pool::reuse(std::size_t size) {
  const auto found = by_size_.lower_bound({size, nullptr});
  if (found == by_size_.end()) return nullptr;
  const auto [whole, start] = *found;
  drop(kept_.find(start));
  if (whole > size) keep(start + size, whole - size);
  return start;
}

void Pool::keep(char* start, std::size_t size) {
  const auto next = kept_.lower_bound(start);
  if (next != kept_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == start) {
      start = before->first;
      size += before->second;
      drop(before);
    }
  }
  if (next != kept_.end() && start + size == next->first) {
    size += next->second;
    drop(next);
  }
  kept_.emplace(start, size);
  by_size_.emplace(size, start);
  kept_bytes_ += size;
}

void Pool::drop(Stretches::iterator stretch) {
  by_size_.erase({stretch->second, stretch->first});
  kept_bytes_ -= stretch->second;
  kept_.erase(stretch);
}

void Pool::trim(std::size_t bytes) {
  while (kept_bytes_ > bytes) {
    const auto [size, start] = *by_size_.begin();
    const auto surplus = std::min(size, kept_bytes_ - bytes);
    drop(kept_.find(start));
    if (surplus < size) keep(start, size - surplus);
    munmap(start + size - surplus, surplus);
  }
}

char* Pool::map(std::size_t size) {
  const auto request = [&] {
    return mmap(nullptr, size + kUnit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  };
  void* mapped = request();
  if (mapped == MAP_FAILED) {
    trim(0);
    mapped = request();
  }
  TORCH_CHECK(mapped != MAP_FAILED, "there is no memory for a tensor of ", size, " bytes (",
              std::strerror(errno), "): ", used_bytes_, " are in use");
  // Cut off what lies before the first unit and behind the block. No advice to use huge pages:
  // steps would gain a fiftieth, but where a host backs a machine's memory as it is used, getting
  // hundreds of them makes a start last twice as long.
  auto* first = static_cast<char*>(mapped);
  auto* start = first + (kUnit - reinterpret_cast<std::uintptr_t>(mapped) % kUnit) % kUnit;
  if (start != first) munmap(first, start - first);
  munmap(start + size, first + kUnit - start);
  return start;
}

}  // namespace spark
