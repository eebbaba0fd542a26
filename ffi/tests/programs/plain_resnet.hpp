// ResNet-18 (He et al., 2015) in plain torch::nn, with timm's names: what a
// backbone of the library must train like.
#pragma once

#include <string>
#include <vector>

#include <torch/torch.h>

namespace plain {

inline torch::nn::Conv2d convolution(
    std::int64_t from, std::int64_t to, std::int64_t kernel, std::int64_t stride) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(from, to, kernel).stride(stride).padding(kernel / 2).bias(false));
}

struct BlockImpl : torch::nn::Module {
  BlockImpl(std::int64_t from, std::int64_t to, std::int64_t stride)
      : conv1(register_module("conv1", convolution(from, to, 3, stride))),
        bn1(register_module("bn1", torch::nn::BatchNorm2d(to))),
        conv2(register_module("conv2", convolution(to, to, 3, 1))),
        bn2(register_module("bn2", torch::nn::BatchNorm2d(to))) {
    if (from != to) {
      downsample = register_module(
          "downsample",
          torch::nn::Sequential(convolution(from, to, 1, stride), torch::nn::BatchNorm2d(to)));
    }
  }

  torch::Tensor forward(const torch::Tensor& input) {
    const auto inner = torch::relu(bn1->forward(conv1->forward(input)));
    const auto outer = bn2->forward(conv2->forward(inner));
    return torch::relu(outer + (downsample.is_empty() ? input : downsample->forward(input)));
  }

  torch::nn::Conv2d conv1;
  torch::nn::BatchNorm2d bn1;
  torch::nn::Conv2d conv2;
  torch::nn::BatchNorm2d bn2;
  torch::nn::Sequential downsample{nullptr};
};
TORCH_MODULE(Block);

struct ResNetImpl : torch::nn::Module {
  ResNetImpl()
      : conv1(register_module(
            "conv1",
            torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 64, 7).stride(2).padding(3).bias(false)))),
        bn1(register_module("bn1", torch::nn::BatchNorm2d(64))) {
    std::int64_t from = 64;
    for (int stage = 0; stage < 4; ++stage) {
      const std::int64_t to = 64 << stage;
      torch::nn::Sequential blocks(Block(from, to, stage == 0 ? 1 : 2), Block(to, to, 1));
      stages.push_back(register_module("layer" + std::to_string(stage + 1), blocks));
      from = to;
    }
  }

  std::vector<torch::Tensor> forward(const torch::Tensor& images) {
    auto map = torch::relu(bn1->forward(conv1->forward(images)));
    map = torch::max_pool2d(map, 3, 2, 1);
    std::vector<torch::Tensor> maps;
    for (auto& stage : stages) {
      map = stage->forward(map);
      maps.push_back(map);
    }
    return maps;
  }

  torch::nn::Conv2d conv1;
  torch::nn::BatchNorm2d bn1;
  std::vector<torch::nn::Sequential> stages;
};
TORCH_MODULE(ResNet);

}  // namespace plain
