// The C++ side of bridge_overhead: for each line "batch pixels forwards" of
// standard input it prints the seconds they took.
#include <chrono>
#include <iostream>

#include <spark/backbone.hpp>
#include <torch/torch.h>

int main(int, char** arguments) {
  spark::Backbone backbone(arguments[1]);
  backbone.eval();
  const torch::NoGradGuard no_grad;
  std::int64_t batch = 0;
  std::int64_t pixels = 0;
  int rounds = 0;
  while (std::cin >> batch >> pixels >> rounds) {
    const auto images = torch::ones({batch, 3, pixels, pixels});
    const auto start = std::chrono::steady_clock::now();
    for (int round = 0; round < rounds; ++round) {
      backbone.forward(images);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::cout << took.count() << std::endl;
  }
}
