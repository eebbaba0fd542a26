// Trains a small object detector on our backbone with synthetic shapes, then
// measures it on fresh images and draws what it finds.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include <spark/backbone.hpp>

#include "detector/evaluation.hpp"
#include "detector/network.hpp"
#include "detector/picture.hpp"
#include "detector/scene.hpp"
#include "detector/training.hpp"

namespace {

using namespace detector;

const char* const usage =
    "usage: detector [--weights FILE] [--steps N] [--seed N] [--output FILE.png]\n"
    "\n"
    "Trains a detector of squares, discs and triangles (resnet18 with a feature pyramid\n"
    "and an anchor-free head) for about a minute, and draws what it finds in fresh\n"
    "images: white the true boxes, coloured those found (square red, disc green,\n"
    "triangle blue). Exits with 1 if it did not learn.\n"
    "\n"
    "  --weights FILE     the backbone's weights; without, it begins at random\n"
    "  --steps N          training steps of 8 images [default: 200]\n"
    "  --seed N           of scenes and parameters [default: 0]\n"
    "  --output FILE.png  the drawing [default: detector.png]\n"
    "\n"
    "example: detector --weights r18.safetensors --output found.png\n";

struct Arguments {
  std::string weights;
  int steps = 200;
  unsigned seed = 0;
  std::string output = "detector.png";
};

constexpr int batch = 8;
constexpr double peak_rate = 2e-3;

// Rises for 30 steps, then falls along half a cosine to a fiftieth.
double learning_rate(int step, int steps) {
  const double warm_up = std::min(1.0, (step + 1) / 30.0);
  const double cosine = 0.5 + 0.5 * std::cos(3.14159265 * step / steps);
  return peak_rate * warm_up * (0.02 + 0.98 * cosine);
}

Network make_network(const std::string& weights) {
  // Strides 8 and 16: objects are 20 to 48 pixels large.
  auto options = spark::Options("resnet18").out_indices({1, 2});
  if (!weights.empty()) {
    return Network(options.weights(weights));
  }
  Network network(options);
  // A fresh residual block begins as the identity: the weight of its last norm
  // is 0. That is good for long training; a minute is better begun at 1.
  const torch::NoGradGuard no_grad;
  for (auto& parameter : network->backbone->named_parameters()) {
    const std::string& name = parameter.key();
    const std::string last = "bn2.weight";
    if (name.size() > last.size() && name.compare(name.size() - last.size(), last.size(), last) == 0) {
      parameter.value().fill_(1);
    }
  }
  return network;
}

// Trains; the mean loss of the first and of the last ten steps.
std::pair<double, double> train(Network& network, const Arguments& arguments) {
  Painter painter(arguments.seed);
  const Positions positions = make_positions(network->strides());
  torch::optim::AdamW optimizer(
      network->parameters(), torch::optim::AdamWOptions().weight_decay(1e-4));
  std::pair<double, double> losses{0, 0};
  const auto start = std::chrono::steady_clock::now();
  network->train();
  for (int step = 0; step < arguments.steps; ++step) {
    std::vector<torch::Tensor> images;
    std::vector<Target> targets;
    for (int image = 0; image < batch; ++image) {
      const Scene scene = painter.paint();
      images.push_back(scene.image);
      targets.push_back(assign(positions, scene));
    }
    for (auto& group : optimizer.param_groups()) {
      group.options().set_lr(learning_rate(step, arguments.steps));
    }
    const auto loss = loss_of(network->forward(torch::stack(images)), targets);
    optimizer.zero_grad();
    loss.backward();
    torch::nn::utils::clip_grad_norm_(network->parameters(), 10);
    optimizer.step();

    const double value = loss.item<double>();
    losses.first += step < 10 ? value / 10 : 0;
    losses.second += step >= arguments.steps - 10 ? value / 10 : 0;
    if (step % 20 == 0 || step == arguments.steps - 1) {
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      std::printf("step %3d/%d  loss %.4f  %.1f s\n", step, arguments.steps, value, took.count());
      std::fflush(stdout);
    }
  }
  return losses;
}

// Runs the detector on fresh scenes and draws the first eight.
Score evaluate(Network& network, const Arguments& arguments) {
  constexpr int scenes = 20;
  constexpr std::array<Colour, class_count> colours = {
      Colour{255, 60, 60}, Colour{60, 220, 60}, Colour{80, 120, 255}};
  const torch::NoGradGuard no_grad;
  network->eval();
  Painter painter(arguments.seed + 1'000'000);  // none that it was trained on
  const Positions positions = make_positions(network->strides());
  Score score;
  std::vector<Picture> pictures;
  for (int index = 0; index < scenes; ++index) {
    const Scene scene = painter.paint();
    const auto prediction = network->forward(scene.image.unsqueeze(0));
    const Detections found = decode(prediction, positions, 0, 0.4);
    score.add(found, scene);
    if (index >= 8) {
      continue;
    }
    Picture picture(scene.image, 3);
    for (std::int64_t row = 0; row < scene.boxes.size(0); ++row) {
      picture.outline(scene.boxes[row], {255, 255, 255}, 4);
    }
    for (std::int64_t row = 0; row < found.boxes.size(0); ++row) {
      const auto kind = static_cast<std::size_t>(found.classes[row].item<std::int64_t>());
      picture.outline(found.boxes[row], colours[kind], 2);
    }
    pictures.push_back(std::move(picture));
  }
  write_png(arguments.output, pictures);
  return score;
}

void run(const Arguments& arguments) {
  torch::manual_seed(arguments.seed);
  Network network = make_network(arguments.weights);
  const auto [before, after] = train(network, arguments);
  const Score score = evaluate(network, arguments);
  std::printf("loss %.4f -> %.4f (means of ten steps)\n", before, after);
  std::printf(
      "fresh images: found %d of %d objects, mean overlap %.3f, right class %d, false alarms %d\n",
      score.found, score.objects, score.mean_overlap(), score.named, score.false_alarms);
  std::printf("drawn to %s\n", arguments.output.c_str());
  if (after > before / 2) {
    throw std::runtime_error("it did not learn: the loss must be halved");
  }
  if (score.recall() <= 0.8 || score.mean_overlap() <= 0.7 ||
      score.false_alarms > score.objects / 5 || score.named < score.found * 4 / 5) {
    throw std::runtime_error(
        "its boxes are not right: more than 80 % of objects must be found, with a mean overlap "
        "above 0.7, four of five with the right class, and few false alarms");
  }
}

// A positive number, the value of `option`.
int positive(const std::string& option, const std::string& text) {
  std::size_t read = 0;
  int number = 0;
  try {
    number = std::stoi(text, &read);
  } catch (const std::exception&) {
    read = 0;
  }
  if (read == 0 || read != text.size() || number < (option == "--seed" ? 0 : 1)) {
    throw std::invalid_argument(option + " is " + text + ", but it must be a positive number");
  }
  return number;
}

Arguments parse(const std::vector<std::string>& words) {
  Arguments arguments;
  for (std::size_t index = 0; index < words.size(); index += 2) {
    const std::string& option = words[index];
    if (index + 1 == words.size()) {
      throw std::invalid_argument(option + " lacks its value, or is no option: see --help");
    }
    const std::string& value = words[index + 1];
    if (option == "--weights") {
      arguments.weights = value;
    } else if (option == "--steps") {
      arguments.steps = positive(option, value);
    } else if (option == "--seed") {
      arguments.seed = static_cast<unsigned>(positive(option, value));
    } else if (option == "--output") {
      arguments.output = value;
    } else {
      throw std::invalid_argument(option + " is no option: see --help");
    }
  }
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    std::fputs(usage, stdout);
    return 0;
  }
  try {
    run(parse(words));
    return 0;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
