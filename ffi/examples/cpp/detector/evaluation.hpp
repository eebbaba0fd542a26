// From predictions to boxes, and how right these are.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/torch.h>

#include "network.hpp"
#include "scene.hpp"
#include "training.hpp"

namespace detector {

// What is found in one image, the surest first.
struct Detections {
  torch::Tensor boxes;    // [found, 4]: x1, y1, x2, y2 in pixels
  torch::Tensor scores;   // [found]
  torch::Tensor classes;  // [found]
};

// Intersection over union of every row of `a` with every row of `b`.
inline torch::Tensor overlaps(const torch::Tensor& a, const torch::Tensor& b) {
  const auto area = [](const torch::Tensor& box) {
    return (box.select(-1, 2) - box.select(-1, 0)) * (box.select(-1, 3) - box.select(-1, 1));
  };
  const auto rows = a.unsqueeze(1), columns = b.unsqueeze(0);
  const auto upper = torch::maximum(rows.slice(2, 0, 2), columns.slice(2, 0, 2));
  const auto lower = torch::minimum(rows.slice(2, 2, 4), columns.slice(2, 2, 4));
  const auto common = (lower - upper).clamp_min(0).prod(2);
  return common / (area(rows) + area(columns) - common);
}

// Non-maximum suppression: of boxes that overlap by more than half, the one
// with the best score stays. `boxes` come sorted by score; the rows that stay.
inline torch::Tensor suppress(const torch::Tensor& boxes) {
  const auto overlap = overlaps(boxes, boxes);
  std::vector<std::int64_t> kept;
  for (std::int64_t row = 0; row < boxes.size(0); ++row) {
    bool stays = true;
    for (const std::int64_t better : kept) {
      stays = stays && overlap[better][row].item<double>() <= 0.5;
    }
    if (stays) {
      kept.push_back(row);
    }
  }
  return torch::tensor(kept, torch::kInt64);
}

// The boxes of image `image` of a prediction whose score is `least` or more.
inline Detections decode(
    const Prediction& prediction, const Positions& positions, std::int64_t image, double least) {
  const auto scores = prediction.objects[image].sigmoid();
  const auto likely = (scores >= least).nonzero().squeeze(1);
  const auto order = likely.index_select(0, scores.index_select(0, likely).argsort(0, true));
  const auto centres = positions.centres.index_select(0, order);
  const auto distances = prediction.distances[image].index_select(0, order);
  const auto boxes = torch::cat(
      {centres - distances.slice(1, 0, 2), centres + distances.slice(1, 2, 4)}, 1);
  const auto kept = suppress(boxes);
  return {
      boxes.index_select(0, kept),
      scores.index_select(0, order).index_select(0, kept),
      prediction.classes[image].argmax(1).index_select(0, order).index_select(0, kept)};
}

// How right detections are, over any number of scenes.
struct Score {
  int objects = 0;
  int found = 0;        // objects with a box that overlaps by half or more
  int named = 0;        // of these, with the right class
  int false_alarms = 0;  // boxes that find no object, or one already found
  double overlap = 0;   // summed over the objects found

  double recall() const { return objects == 0 ? 0 : static_cast<double>(found) / objects; }
  double mean_overlap() const { return found == 0 ? 0 : overlap / found; }

  void add(const Detections& detections, const Scene& scene) {
    objects += static_cast<int>(scene.boxes.size(0));
    const auto overlap_of = overlaps(detections.boxes, scene.boxes);
    std::vector<bool> taken(static_cast<std::size_t>(scene.boxes.size(0)), false);
    for (std::int64_t row = 0; row < detections.boxes.size(0); ++row) {
      const auto [best, object] = overlap_of[row].max(0);
      const auto index = object.item<std::int64_t>();
      if (best.item<double>() < 0.5 || taken[static_cast<std::size_t>(index)]) {
        ++false_alarms;
        continue;
      }
      taken[static_cast<std::size_t>(index)] = true;
      ++found;
      overlap += best.item<double>();
      named += torch::equal(detections.classes[row], scene.classes[index]) ? 1 : 0;
    }
  }
};

}  // namespace detector
