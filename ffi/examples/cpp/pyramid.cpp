// Loads exported weights, runs an image through the backbone and prints the
// pyramid of feature maps.

#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>

#include <spark/backbone.hpp>

namespace {

const char* const usage =
    "usage: pyramid MODEL WEIGHTS IMAGE.ppm\n"
    "\n"
    "Prints the feature maps of an image, finest first. WEIGHTS is a file of any\n"
    "framework, such as pretrain exports. The image is a PPM (P6), which needs no\n"
    "library to read; from another format:\n"
    "  python -c \"from PIL import Image; Image.open('cat.jpg').convert('RGB').save('cat.ppm')\"\n"
    "\n"
    "example: pyramid resnet50 r50.safetensors cat.ppm\n";

// The next number of a PPM's head; comments run from # to the end of the line.
int read_number(std::istream& file, const std::string& path) {
  while ((file >> std::ws) && file.peek() == '#') {
    std::string comment;
    std::getline(file, comment);
  }
  int number = 0;
  if (!(file >> number) || number <= 0) {
    throw std::runtime_error(path + " has no positive number where a PPM's head has one");
  }
  return number;
}

// The image at `path`, [1, 3, H, W], 0 to 1.
torch::Tensor read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error(path + " cannot be opened");
  }
  std::string magic(2, ' ');
  if (!file.read(&magic[0], 2) || magic != "P6") {
    throw std::runtime_error(path + " is no PPM: it does not begin with P6");
  }
  const int width = read_number(file, path);
  const int height = read_number(file, path);
  if (read_number(file, path) != 255) {
    throw std::runtime_error(path + " does not have 255 for its brightest value: 8 bits are read");
  }
  file.get();  // One character of white space ends the head.
  const auto pixels = torch::empty({height, width, 3}, torch::kUInt8);
  const auto size = static_cast<std::streamsize>(pixels.numel());
  if (!file.read(reinterpret_cast<char*>(pixels.data_ptr<std::uint8_t>()), size)) {
    throw std::runtime_error(path + " ends before its last pixel");
  }
  return pixels.permute({2, 0, 1}).unsqueeze(0).to(torch::kFloat32) / 255;
}

// With ImageNet's mean and deviation, as the backbones are trained.
torch::Tensor normalise(const torch::Tensor& image) {
  const auto mean = torch::tensor({0.485f, 0.456f, 0.406f}).view({1, 3, 1, 1});
  const auto deviation = torch::tensor({0.229f, 0.224f, 0.225f}).view({1, 3, 1, 1});
  return (image - mean) / deviation;
}

void print_pyramid(const std::string& model, const std::string& weights, const std::string& path) {
  spark::Backbone backbone(spark::Options(model).weights(weights));
  backbone.eval();
  const torch::NoGradGuard no_grad;
  const std::vector<torch::Tensor> maps = backbone.forward(normalise(read_ppm(path)));

  std::printf("level  stride  channels  height  width      mean       min       max\n");
  for (std::size_t level = 0; level < maps.size(); ++level) {
    const SparkLevel& shape = backbone.levels()[level];
    const torch::Tensor& map = maps[level];
    std::printf(
        "%5lld  %6lld  %8lld  %6lld  %5lld  %8.5f  %8.5f  %8.5f\n",
        static_cast<long long>(shape.stage),
        static_cast<long long>(shape.stride),
        static_cast<long long>(map.size(1)),
        static_cast<long long>(map.size(2)),
        static_cast<long long>(map.size(3)),
        map.mean().item<double>(),
        map.min().item<double>(),
        map.max().item<double>());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    const bool asked = argc == 2 && std::string(argv[1]) == "--help";
    std::fputs(usage, asked ? stdout : stderr);
    return asked ? 0 : 2;
  }
  try {
    print_pyramid(argv[1], argv[2], argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
