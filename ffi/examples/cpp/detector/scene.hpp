// Synthetic scenes: bright squares, discs and triangles on dark, textured
// ground, with the box around each.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <torch/torch.h>

namespace detector {

constexpr std::int64_t side = 96;  // of an image, in pixels
constexpr std::array<const char*, 3> class_names = {"square", "disc", "triangle"};
constexpr std::int64_t class_count = class_names.size();

// An image and what is in it. Rows of `boxes` are (x1, y1, x2, y2) in pixels,
// from the left and upper edge to beyond the right and lower one.
struct Scene {
  torch::Tensor image;    // [3, side, side], 0 to 1
  torch::Tensor boxes;    // [objects, 4], float32
  torch::Tensor classes;  // [objects], int64
};

// One thing in a scene.
struct Shape {
  int kind;  // an index of class_names
  int x, y;  // of the left upper corner
  int size;

  // Whether the pixel whose centre is (column, row) + ½ belongs to it.
  bool covers(int column, int row) const {
    const double u = (column + 0.5 - x) / size;
    const double v = (row + 0.5 - y) / size;
    if (u < 0 || u >= 1 || v < 0 || v >= 1) {
      return false;
    }
    switch (kind) {
      case 0:
        return true;
      case 1:
        return std::hypot(u - 0.5, v - 0.5) <= 0.5;
      default:
        return std::abs(u - 0.5) <= v / 2;
    }
  }

  // Whether another lies nearer than two pixels.
  bool is_near(const Shape& other) const {
    return x < other.x + other.size + 2 && other.x < x + size + 2 &&
        y < other.y + other.size + 2 && other.y < y + size + 2;
  }
};

// Draws scenes; the same seed gives the same ones.
class Painter {
 public:
  explicit Painter(std::uint32_t seed) : random_(seed) {}

  Scene paint() {
    std::vector<Shape> shapes;
    const int wanted = integer(1, 3);
    // Where three large shapes leave no room, the scene has fewer.
    for (int attempt = 0; attempt < 50 && static_cast<int>(shapes.size()) < wanted; ++attempt) {
      const Shape shape = place();
      const auto near = [&](const Shape& other) { return shape.is_near(other); };
      if (std::none_of(shapes.begin(), shapes.end(), near)) {
        shapes.push_back(shape);
      }
    }
    Scene scene;
    scene.image = ground();
    for (const Shape& shape : shapes) {
      fill(scene.image, shape);
    }
    scene.boxes = torch::empty({static_cast<std::int64_t>(shapes.size()), 4});
    scene.classes = torch::empty({static_cast<std::int64_t>(shapes.size())}, torch::kInt64);
    for (std::size_t index = 0; index < shapes.size(); ++index) {
      const auto row = static_cast<std::int64_t>(index);
      const Shape& shape = shapes[index];
      scene.boxes[row] = torch::tensor(
          {shape.x, shape.y, shape.x + shape.size, shape.y + shape.size}, torch::kFloat32);
      scene.classes[row] = shape.kind;
    }
    return scene;
  }

 private:
  // Both ends included. Not std::uniform_int_distribution: what it draws from a
  // seed differs between standard libraries.
  int integer(int low, int high) {
    return low + static_cast<int>(random_() % static_cast<std::uint32_t>(high - low + 1));
  }

  float fraction() { return static_cast<float>(random_() >> 8) / (1 << 24); }

  Shape place() {
    const int size = integer(20, 48);
    const int room = static_cast<int>(side) - size;
    return Shape{integer(0, class_count - 1), integer(0, room), integer(0, room), size};
  }

  // Dark blotches of eight pixels, blurred into each other, under fine grain.
  torch::Tensor ground() {
    auto blotches = torch::empty({1, 3, side / 8, side / 8});
    fill_with_noise(blotches, 0.25f);
    namespace F = torch::nn::functional;
    auto image = F::interpolate(
        blotches,
        F::InterpolateFuncOptions()
            .size(std::vector<std::int64_t>{side, side})
            .mode(torch::kBilinear)
            .align_corners(false));
    auto grain = torch::empty({1, 3, side, side});
    fill_with_noise(grain, 0.1f);
    return (image + grain).squeeze(0).contiguous();
  }

  void fill_with_noise(torch::Tensor& tensor, float brightest) {
    float* values = tensor.data_ptr<float>();
    std::generate_n(values, tensor.numel(), [&] { return brightest * fraction(); });
  }

  void fill(torch::Tensor& image, const Shape& shape) {
    const std::array<float, 3> colour = {
        0.6f + 0.4f * fraction(), 0.6f + 0.4f * fraction(), 0.6f + 0.4f * fraction()};
    auto pixels = image.accessor<float, 3>();
    for (int row = shape.y; row < shape.y + shape.size; ++row) {
      for (int column = shape.x; column < shape.x + shape.size; ++column) {
        if (shape.covers(column, row)) {
          for (int channel = 0; channel < 3; ++channel) {
            pixels[channel][row][column] = colour[static_cast<std::size_t>(channel)];
          }
        }
      }
    }
  }

  std::mt19937 random_;
};

}  // namespace detector
