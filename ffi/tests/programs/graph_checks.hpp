// A network from a `.pt2` file in a C++ program.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <torch/torch.h>

#include <spark/backbone.hpp>

#include "expect.hpp"

namespace checks {

// The file's network trains, and once it is open the file is not needed again.
inline void check_graph(const std::string& file, const std::string& directory) {
  auto backbone = std::make_shared<spark::Backbone>(spark::Options(file).dtype("float64"));
  EXPECT(backbone->named_parameters().contains("layer1.0.conv1.weight"));
  EXPECT(!backbone->named_parameters().contains("fc.weight"));

  backbone->train();
  const auto images = torch::randn({2, 3, 96, 64}, torch::kFloat64);
  torch::optim::SGD optimizer(backbone->parameters(), 1e-4);
  std::vector<double> losses;
  for (int step = 0; step < 5; ++step) {
    optimizer.zero_grad();
    auto loss = torch::zeros({}, torch::kFloat64);
    for (const auto& map : backbone->forward(images)) {
      loss += map.square().mean();
    }
    loss.backward();
    optimizer.step();
    losses.push_back(loss.item<double>());
  }
  EXPECT(losses.back() < losses.front());

  const std::string moved = file + ".moved";
  EXPECT(std::rename(file.c_str(), moved.c_str()) == 0);
  backbone->eval();
  const torch::NoGradGuard no_grad;
  const auto expected = backbone->forward(images);
  // The largest difference to what the trained backbone gives.
  const auto apart = [&](spark::Backbone& other) {
    other.eval();
    const auto maps = other.forward(images);
    EXPECT(maps.size() == expected.size());
    double largest = 0;
    for (std::size_t level = 0; level < maps.size(); ++level) {
      largest = std::max(largest, (maps[level] - expected[level]).abs().max().item<double>());
    }
    return largest;
  };
  EXPECT(apart(*std::dynamic_pointer_cast<spark::Backbone>(backbone->clone())) == 0);
  torch::save(backbone, directory + "/module.pt");
  auto loaded = std::make_shared<spark::Backbone>(backbone->config(), backbone->graph());
  torch::load(loaded, directory + "/module.pt");
  EXPECT(apart(*loaded) == 0);
  // Its weights keep the type that the graph was exported in, single precision.
  backbone->save_weights(directory + "/trained.pt2");
  spark::Backbone again(spark::Options(directory + "/trained.pt2").dtype("float64"));
  EXPECT(apart(again) < 1e-4);
  EXPECT(std::rename(moved.c_str(), file.c_str()) == 0);
}

}  // namespace checks
