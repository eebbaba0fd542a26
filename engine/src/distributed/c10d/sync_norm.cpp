// Batch norm over the batches of all processes (torch.nn.SyncBatchNorm), on any device.
#include <ATen/ops/addcmul.h>
#include <ATen/ops/batch_norm_update_stats.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "spark-engine/src/bridge.rs.h"
#include "spark-engine/src/distributed/c10d/group.hpp"

namespace spark {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Processes = c10::intrusive_ptr<c10d::ProcessGroup>;

// [1, C, 1, …] beside a tensor of that many dimensions.
at::Tensor along_channels(const at::Tensor& values, const at::Tensor& beside) {
  std::vector<std::int64_t> size(beside.dim(), 1);
  size[1] = values.numel();
  return values.view(size);
}

struct SyncBatchNorm : torch::autograd::Function<SyncBatchNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight, const at::Tensor& bias,
                            at::Tensor running_mean, at::Tensor running_var, double momentum,
                            double eps, const Processes& processes) {
    const auto channels = input.size(1);
    const auto count = input.numel() / channels;
    const auto wide = weight.options().dtype(at::kDouble);

    // The mean and the sum of squared distances from it of this process, and its count.
    auto own = at::zeros({2 * channels + 1}, wide);
    if (count > 0) {
      // Running statistics that are thrown away make the kernel keep its own in their type
      // where the input's is narrower.
      auto [mean, var] = at::batch_norm_update_stats(
          input, at::zeros_like(running_mean), at::zeros_like(running_var), 0.0);
      own = at::cat({mean.to(at::kDouble), var.to(at::kDouble) * static_cast<double>(count),
                     at::full({1}, static_cast<double>(count), wide)});
    }
    auto all = at::zeros({processes->getSize(), own.size(0)}, wide);
    std::vector<std::vector<at::Tensor>> slots{all.unbind()};
    std::vector<at::Tensor> sent{own};
    processes->allgather(slots, sent, c10d::AllgatherOptions())->wait();

    // Chan et al. 1979: no difference of large numbers.
    const auto means = all.narrow(1, 0, channels);
    const auto squares = all.narrow(1, channels, channels);
    const auto counts = all.narrow(1, 2 * channels, 1);
    const auto total = counts.sum().clamp_min(1);
    const auto mean = (means * counts).sum(0) / total;
    const auto square = (squares + counts * (means - mean).square()).sum(0);
    const auto var = square / total;

    // Running variances are unbiased. With no position anywhere there is nothing to learn.
    const auto share = momentum * counts.sum().clamp_max(1);
    running_mean.add_((mean - running_mean) * share);
    running_var.add_((square / (total - 1).clamp_min(1) - running_var) * share);

    const auto type = weight.scalar_type();
    const auto mean_out = mean.to(type);
    const auto var_out = var.to(type);
    context->save_for_backward({input, weight, mean_out, var_out, total});
    context->saved_data["eps"] = eps;
    context->saved_data["processes"] = c10::IValue(processes);
    if (count == 0) {
      return at::empty_like(input);
    }
    return std::get<0>(at::native_batch_norm(input, weight, bias, mean_out, var_out,
                                             /*training=*/false, 0.0, eps));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& input = saved[0];
    const auto& weight = saved[1];
    const auto& mean = saved[2];
    const auto& var = saved[3];
    const auto& total = saved[4];
    const auto eps = context->saved_data["eps"].toDouble();
    const auto processes = context->saved_data["processes"].toCustomClass<c10d::ProcessGroup>();
    const auto& gradient = gradients[0];

    // As if the statistics were constants: the sums of gradient · normalised input and of the
    // gradient.
    auto by_weight = at::zeros_like(weight);
    auto by_bias = at::zeros_like(weight);
    if (input.numel() > 0) {
      // Saved statistics are for training; CUDA's kernel wants them to be there, if empty.
      const auto none = at::empty({0}, mean.options());
      auto sums = at::native_batch_norm_backward(gradient, input, weight, mean, var, none, none,
                                                 /*train=*/false, eps, {false, true, true});
      by_weight = std::get<1>(sums);
      by_bias = std::get<2>(sums);
    }
    auto sums = at::cat({by_weight.to(at::kDouble), by_bias.to(at::kDouble)});
    std::vector<at::Tensor> reduced{sums};
    processes->allreduce(reduced, c10d::AllreduceOptions())->wait();

    at::Tensor by_input;
    if (input.numel() > 0) {
      const auto channels = weight.numel();
      const auto deviation = (var.to(at::kDouble) + eps).rsqrt();
      const auto scale = weight.to(at::kDouble) * deviation;
      const auto slope = -scale * deviation * sums.narrow(0, 0, channels) / total;
      const auto shift =
          -scale * sums.narrow(0, channels, channels) / total - slope * mean.to(at::kDouble);
      const auto channel = [&](const at::Tensor& values) {
        return along_channels(values.to(weight.scalar_type()), input);
      };
      by_input = at::addcmul(channel(shift), gradient, channel(scale));
      by_input.addcmul_(input, channel(slope));
      by_input = by_input.to(input.scalar_type());
    } else {
      by_input = at::zeros_like(input);
    }
    return {by_input, by_weight, by_bias, {}, {}, {}, {}, {}};
  }
};

}  // namespace

std::unique_ptr<at::Tensor> sync_batch_norm(const Group& group, const at::Tensor& input,
                                            const at::Tensor& weight, const at::Tensor& bias,
                                            const at::Tensor& running_mean,
                                            const at::Tensor& running_var, double momentum,
                                            double eps) {
  return std::make_unique<at::Tensor>(SyncBatchNorm::apply(
      input, weight, bias, running_mean, running_var, momentum, eps, group.processes()));
}

}  // namespace spark
