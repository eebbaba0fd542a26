// Gradients averaged over all processes while the backward pass computes the next ones.
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <memory>
#include <type_traits>
#include <unordered_map>

#include "spark-engine/src/bridge.rs.h"
#include "spark-engine/src/distributed/c10d/group.hpp"

namespace spark {

namespace {

// Of the first parameters, whose gradients come last and are hidden behind nothing.
constexpr std::int64_t kFirstBucketBytes = 1 << 20;
constexpr std::int64_t kBucketBytes = 25 << 20;

class Silence : public c10::WarningHandler {
 public:
  void process(const c10::Warning& /*warning*/) override {}
};

// From 2.11 on the constructor takes sizes of the buckets one by one, too. None are given.
template <typename Reducer, typename... Arguments>
std::shared_ptr<Reducer> make_reducer(Arguments... arguments) {
  using Sizes = std::vector<std::int64_t>;
  if constexpr (std::is_constructible_v<Reducer, Arguments..., Sizes>) {
    return std::make_shared<Reducer>(std::move(arguments)..., Sizes{});
  } else {
    return std::make_shared<Reducer>(std::move(arguments)...);
  }
}

}  // namespace

GradientReducer::GradientReducer(const Group& group, std::vector<at::Tensor> parameters,
                                 rust::Slice<const rust::String> names) {
  // Unused parameters are looked for (ConvNeXt's last norm is one in pretraining): a walk through
  // the graph, small beside a step. The buckets then stay as they are from the first step on, so
  // that a run that is resumed adds up in the same order as one that was not.
  const std::vector<bool> sparse(parameters.size(), false);
  auto assigned = c10d::compute_bucket_assignment_by_size(
      parameters,
      {static_cast<std::size_t>(kFirstBucketBytes), static_cast<std::size_t>(kBucketBytes)},
      sparse);
  // The last parameters have their gradients first.
  auto buckets = std::get<0>(assigned);
  std::reverse(buckets.begin(), buckets.end());
  std::unordered_map<std::size_t, std::string> named;
  for (std::size_t index = 0; index < names.size(); ++index) {
    named[index] = std::string(names[index].data(), names[index].size());
  }
  reducer_ = make_reducer<c10d::Reducer>(
      std::move(parameters), std::move(buckets), group.processes(), sparse, kBucketBytes,
      /*find_unused_parameters=*/true, /*gradient_as_bucket_view=*/true, std::move(named),
      kFirstBucketBytes, /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false);
  logger_ = std::make_shared<c10d::Logger>(reducer_);
  reducer_->set_logger(logger_);
  logger_->set_construction_data_and_log("spark", {}, -1, false, false, false);
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::begin() const {
  logger_->set_runtime_stats_and_log();
  reducer_->prepare_for_forward();
}

void GradientReducer::backward(const at::Tensor& loss, bool last) const {
  // c10d advises against looking for unused parameters, and of layouts that differ in name only.
  Silence silence;
  c10::WarningUtils::WarningHandlerGuard guard(&silence);
  if (last) {
    reducer_->prepare_for_backward({loss});
  }
  loss.backward();
}

rust::Vec<std::int64_t> GradientReducer::buckets() const {
  rust::Vec<std::int64_t> sizes;
  for (const auto size : logger_->get_bucket_sizes()) {
    sizes.push_back(size);
  }
  return sizes;
}

Timings GradientReducer::timings() const {
  const auto data = logger_->get_ddp_logging_data();
  const auto number = [&](const char* name) {
    const auto found = data.ints_map.find(name);
    return found == data.ints_map.end() ? std::int64_t{0} : found->second;
  };
  Timings timings{};
  timings.backward_ns = number("avg_backward_compute_time");
  timings.communication_ns = number("avg_backward_comm_time");
  timings.hidden_ns = number("avg_backward_compute_comm_overlap_time");
  return timings;
}

std::unique_ptr<GradientReducer> gradient_reducer(const Group& group, const TensorList& parameters,
                                                  rust::Slice<const rust::String> names) {
  return std::make_unique<GradientReducer>(group, parameters.tensors, names);
}

}  // namespace spark
