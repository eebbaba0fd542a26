// An anchor-free detector: our backbone, a feature pyramid and a head shared by
// its levels, after "FCOS: Fully Convolutional One-Stage Object Detection"
// (Tian et al., 2019), but with one score for "an object" and a choice among
// classes in place of a score a class: a minute of training is enough for these.
#pragma once

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include <spark/backbone.hpp>

#include "scene.hpp"

namespace detector {

constexpr std::int64_t width = 64;  // channels of pyramid and head

inline torch::nn::Conv2d convolution(std::int64_t from, std::int64_t to, std::int64_t kernel) {
  return torch::nn::Conv2d(torch::nn::Conv2dOptions(from, to, kernel).padding(kernel / 2));
}

// Feature Pyramid Network: every level gets what the coarser ones know.
struct PyramidImpl : torch::nn::Module {
  explicit PyramidImpl(const std::vector<SparkLevel>& levels) {
    for (const SparkLevel& level : levels) {
      lateral->push_back(convolution(level.channels, width, 1));
      output->push_back(convolution(width, width, 3));
    }
    register_module("lateral", lateral);
    register_module("output", output);
  }

  // `maps` and the result: one a level, finest first.
  std::vector<torch::Tensor> forward(const std::vector<torch::Tensor>& maps) {
    namespace F = torch::nn::functional;
    std::vector<torch::Tensor> levels(maps.size());
    torch::Tensor sum;
    for (std::size_t index = maps.size(); index-- > 0;) {
      const auto map = lateral->ptr<torch::nn::Conv2dImpl>(index)->forward(maps[index]);
      if (sum.defined()) {
        const auto size = std::vector<std::int64_t>{map.size(2), map.size(3)};
        const auto nearest = F::InterpolateFuncOptions().size(size).mode(torch::kNearest);
        sum = map + F::interpolate(sum, nearest);
      } else {
        sum = map;
      }
      levels[index] = output->ptr<torch::nn::Conv2dImpl>(index)->forward(sum);
    }
    return levels;
  }

  torch::nn::ModuleList lateral, output;
};
TORCH_MODULE(Pyramid);

// What the head says of each position, all levels in one list.
struct Prediction {
  torch::Tensor objects;    // [N, positions]: logit of being about an object
  torch::Tensor classes;    // [N, positions, class_count]: logits of a softmax
  torch::Tensor distances;  // [N, positions, 4]: left, top, right, bottom, in pixels
};

// Two towers of convolutions; the same for all levels, so distances come in
// units of the level's stride.
struct HeadImpl : torch::nn::Module {
  HeadImpl()
      : class_tower(register_module("class_tower", tower())),
        box_tower(register_module("box_tower", tower())),
        objects(register_module("objects", convolution(width, 1, 3))),
        classes(register_module("classes", convolution(width, class_count, 3))),
        boxes(register_module("boxes", convolution(width, 4, 3))) {
    for (const auto& last : {objects, classes, boxes}) {
      torch::nn::init::normal_(last->weight, 0.0, 0.01);
      torch::nn::init::zeros_(last->bias);
    }
    // Nearly every position is background: begin by saying so, with a
    // probability of 1 % for an object, as "Focal Loss for Dense Object
    // Detection" does (Lin et al., 2017).
    torch::nn::init::constant_(objects->bias, -std::log(99.0));
  }

  Prediction forward(const std::vector<torch::Tensor>& levels, const std::vector<double>& strides) {
    std::vector<torch::Tensor> scores, kinds, distances;
    for (std::size_t index = 0; index < levels.size(); ++index) {
      const auto known = class_tower->forward(levels[index]);
      scores.push_back(listed(objects->forward(known)).squeeze(2));
      kinds.push_back(listed(classes->forward(known)));
      // Beyond e⁵ strides there is no image.
      const auto raw = boxes->forward(box_tower->forward(levels[index])).clamp_max(5);
      distances.push_back(listed(raw.exp() * strides[index]));
    }
    return {torch::cat(scores, 1), torch::cat(kinds, 1), torch::cat(distances, 1)};
  }

  static torch::nn::Sequential tower() {
    torch::nn::Sequential layers;
    for (int layer = 0; layer < 2; ++layer) {
      layers->push_back(convolution(width, width, 3));
      layers->push_back(torch::nn::GroupNorm(torch::nn::GroupNormOptions(8, width)));
      layers->push_back(torch::nn::ReLU());
    }
    return layers;
  }

  // [N, C, H, W] as [N, H·W, C].
  static torch::Tensor listed(const torch::Tensor& map) { return map.flatten(2).transpose(1, 2); }

  torch::nn::Sequential class_tower, box_tower;
  torch::nn::Conv2d objects, classes, boxes;
};
TORCH_MODULE(Head);

struct NetworkImpl : torch::nn::Module {
  explicit NetworkImpl(const spark::Options& options)
      : backbone(register_module("backbone", std::make_shared<spark::Backbone>(options))),
        pyramid(register_module("pyramid", Pyramid(backbone->levels()))),
        head(register_module("head", Head())) {}

  // `images` are [N, 3, side, side], 0 to 1.
  Prediction forward(const torch::Tensor& images) {
    // Roughly the scenes' own mean and deviation.
    const auto maps = backbone->forward((images - 0.2) / 0.25);
    return head->forward(pyramid->forward(maps), strides());
  }

  // Pixels from one position of a level to the next, finest level first.
  std::vector<double> strides() const {
    std::vector<double> list;
    for (const SparkLevel& level : backbone->levels()) {
      list.push_back(static_cast<double>(level.stride));
    }
    return list;
  }

  std::shared_ptr<spark::Backbone> backbone;
  Pyramid pyramid;
  Head head;
};
TORCH_MODULE(Network);

}  // namespace detector
