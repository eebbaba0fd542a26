// Which position has to find which object, and what its mistakes cost.
#pragma once

#include <limits>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "network.hpp"
#include "scene.hpp"

namespace detector {

// The positions of all levels in the order of a Prediction.
struct Positions {
  torch::Tensor centres;   // [positions, 2]: x, y in pixels
  torch::Tensor strides;   // [positions]
  torch::Tensor smallest;  // [positions]: sides of the objects that the level
  torch::Tensor largest;   //   is there for, [smallest, largest)
};

// Sizes are shared out in octaves: the finest level takes objects below four
// of its strides, the next below four of its own, the coarsest all others.
inline Positions make_positions(const std::vector<double>& strides) {
  std::vector<torch::Tensor> centres, steps, smallest, largest;
  for (std::size_t level = 0; level < strides.size(); ++level) {
    const double stride = strides[level];
    const auto count = static_cast<std::int64_t>(side / stride);
    const auto line = (torch::arange(count) + 0.5) * stride;
    const auto grid = torch::meshgrid({line, line}, "ij");
    centres.push_back(torch::stack({grid[1].flatten(), grid[0].flatten()}, 1));
    const double low = level == 0 ? 0 : 4 * strides[level - 1];
    const bool last = level + 1 == strides.size();
    const double high = last ? std::numeric_limits<double>::infinity() : 4 * stride;
    steps.push_back(torch::full({count * count}, stride));
    smallest.push_back(torch::full({count * count}, low));
    largest.push_back(torch::full({count * count}, high));
  }
  return {torch::cat(centres), torch::cat(steps), torch::cat(smallest), torch::cat(largest)};
}

// What each position has to say of a scene.
struct Target {
  torch::Tensor classes;    // [positions]; -1: background
  torch::Tensor distances;  // [positions, 4]
};

// A position is answerable for an object of its level's sizes if it lies in the
// object's box and within 1.5 strides of its centre; of several, the smallest.
inline Target assign(const Positions& positions, const Scene& scene) {
  const auto corners = scene.boxes.unsqueeze(0);        // [1, objects, 4]
  const auto points = positions.centres.unsqueeze(1);   // [positions, 1, 2]
  const auto upper = corners.slice(2, 0, 2), lower = corners.slice(2, 2, 4);
  const auto distances = torch::cat({points - upper, lower - points}, 2);
  const auto inside = distances.amin(2) > 0;
  const auto reach = 1.5 * positions.strides.unsqueeze(1);
  const auto central = (points - (upper + lower) / 2).abs().amax(2) < reach;
  const auto size = (lower - upper).amax(2);
  const auto suits =
      (size >= positions.smallest.unsqueeze(1)) & (size < positions.largest.unsqueeze(1));

  const auto area = (lower - upper).prod(2).expand_as(inside);
  const auto infinity = std::numeric_limits<double>::infinity();
  const auto [least, object] = area.masked_fill(~(inside & central & suits), infinity).min(1);
  const auto background = least == infinity;
  const auto index = object.view({-1, 1, 1}).expand({-1, 1, 4});
  return {
      scene.classes.index_select(0, object).masked_fill(background, -1),
      distances.gather(1, index).squeeze(1)};
}

// Cross-entropy in which what is known already weighs little (Lin et al.).
inline torch::Tensor focal_loss(const torch::Tensor& logits, const torch::Tensor& truth) {
  namespace F = torch::nn::functional;
  const auto each = F::binary_cross_entropy_with_logits(
      logits, truth, F::BinaryCrossEntropyWithLogitsFuncOptions().reduction(torch::kNone));
  const auto doubt = (truth - logits.sigmoid()).abs();
  return (0.5 * doubt.square() * each).sum();
}

// One minus the generalised intersection over union (Rezatofighi et al., 2019)
// of boxes around the same positions, given as distances, [boxes, 4].
inline torch::Tensor giou_loss(const torch::Tensor& found, const torch::Tensor& truth) {
  const auto area = [](const torch::Tensor& box) {
    return (box.select(1, 0) + box.select(1, 2)) * (box.select(1, 1) + box.select(1, 3));
  };
  const auto common = area(torch::minimum(found, truth));
  const auto hull = area(torch::maximum(found, truth));
  const auto all = area(found) + area(truth) - common;
  return (1 - common / all + (hull - all) / hull).sum();
}

// All losses together, a mean over the positions that find something.
inline torch::Tensor loss_of(const Prediction& prediction, const std::vector<Target>& targets) {
  namespace F = torch::nn::functional;
  std::vector<torch::Tensor> classes, distances;
  for (const Target& target : targets) {
    classes.push_back(target.classes);
    distances.push_back(target.distances);
  }
  const auto wanted = torch::stack(classes);
  const auto object = wanted >= 0;
  const auto scores = focal_loss(prediction.objects, object.to(torch::kFloat32));
  const auto kinds = F::cross_entropy(
      prediction.classes.index({object}),
      wanted.index({object}),
      F::CrossEntropyFuncOptions().reduction(torch::kSum));
  const auto boxes =
      giou_loss(prediction.distances.index({object}), torch::stack(distances).index({object}));
  return (scores + kinds + boxes) / object.sum().clamp_min(1);
}

}  // namespace detector
