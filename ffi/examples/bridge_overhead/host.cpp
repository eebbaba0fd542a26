// The C++ side of bridge_overhead: forwards as often as standard input asks,
// and prints the seconds they took.
#include <chrono>
#include <iostream>

#include <spark/backbone.hpp>
#include <torch/torch.h>

int main(int, char** arguments) {
  spark::Backbone backbone(arguments[1]);
  backbone.eval();
  const torch::NoGradGuard no_grad;
  std::int64_t batch = 0;
  int rounds = 0;
  while (std::cin >> batch >> rounds) {
    const auto images = torch::ones({batch, 3, 224, 224});
    const auto start = std::chrono::steady_clock::now();
    for (int round = 0; round < rounds; ++round) {
      backbone.forward(images);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::cout << took.count() << std::endl;
  }
}
