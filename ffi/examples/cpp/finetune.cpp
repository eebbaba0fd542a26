// Fine-tunes a backbone with a linear head on two classes of stripes, then
// saves the whole model and loads it again.

#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include <spark/backbone.hpp>

namespace {

constexpr int steps = 60;
constexpr std::int64_t batch = 16;
constexpr std::int64_t side = 64;

const char* const usage =
    "usage: finetune [WEIGHTS]\n"
    "\n"
    "Fine-tunes resnet18, from WEIGHTS if given, to tell upright stripes from lying\n"
    "ones, and writes the model to finetuned.pt. Exits with 1 if it does not learn.\n"
    "\n"
    "example: finetune r18.safetensors\n";

// A linear classifier on the mean of the coarsest feature map.
struct ClassifierImpl : torch::nn::Module {
  explicit ClassifierImpl(const spark::Options& options, std::int64_t classes)
      : backbone(register_module("backbone", std::make_shared<spark::Backbone>(options))),
        head(register_module(
            "head", torch::nn::Linear(backbone->levels().back().channels, classes))) {}

  torch::Tensor forward(const torch::Tensor& images) {
    return head->forward(backbone->forward(images).back().mean({2, 3}));
  }

  std::shared_ptr<spark::Backbone> backbone;
  torch::nn::Linear head;
};
TORCH_MODULE(Classifier);

// Images [batch, 3, side, side] of noisy stripes and their classes: 0 upright,
// 1 lying.
std::pair<torch::Tensor, torch::Tensor> draw_batch() {
  const auto classes = torch::randint(2, {batch}, torch::kInt64);
  const auto period = 4 + 8 * torch::rand({batch, 1});
  const auto phase = 6.28f * torch::rand({batch, 1});
  const auto wave = torch::sin(6.28f * torch::arange(side) / period + phase);  // [batch, side]
  const auto upright = wave.view({batch, 1, 1, side}).expand({batch, 3, side, side});
  const auto is_lying = classes.view({batch, 1, 1, 1}) == 1;
  const auto stripes = torch::where(is_lying, upright.transpose(2, 3), upright);
  return {stripes + 0.5 * torch::randn({batch, 3, side, side}), classes};
}

// The head is new and learns faster than the backbone; frozen parameters are
// left out.
torch::optim::AdamW make_optimizer(ClassifierImpl& model) {
  std::vector<torch::Tensor> trained;
  for (const auto& parameter : model.backbone->parameters()) {
    if (parameter.requires_grad()) {
      trained.push_back(parameter);
    }
  }
  using Settings = torch::optim::AdamWOptions;
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::move(trained), std::make_unique<Settings>(Settings(3e-4)));
  groups.emplace_back(model.head->parameters(), std::make_unique<Settings>(Settings(3e-3)));
  return torch::optim::AdamW(groups, Settings().weight_decay(0.05));
}

// Trains; the mean loss of the first and of the last ten steps.
std::pair<double, double> train(Classifier& model) {
  auto optimizer = make_optimizer(*model);
  std::pair<double, double> losses{0, 0};
  model->train();
  for (int step = 0; step < steps; ++step) {
    const auto [images, classes] = draw_batch();
    const auto loss = torch::nn::functional::cross_entropy(model->forward(images), classes);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    const double value = loss.item<double>();
    losses.first += step < 10 ? value / 10 : 0;
    losses.second += step >= steps - 10 ? value / 10 : 0;
    if (step % 10 == 0 || step == steps - 1) {
      std::printf("step %2d/%d  loss %.4f\n", step, steps, value);
    }
  }
  return losses;
}

void run(const std::string& weights) {
  torch::manual_seed(0);
  auto options = spark::Options("resnet18").freeze_at(1);  // the stem stays as it is
  if (!weights.empty()) {
    options.weights(weights);
  }
  Classifier model(options, 2);
  const auto [before, after] = train(model);

  torch::save(model, "finetuned.pt");
  Classifier loaded(spark::Options("resnet18"), 2);
  torch::load(loaded, "finetuned.pt");
  model->eval();
  loaded->eval();
  const torch::NoGradGuard no_grad;
  const auto [images, classes] = draw_batch();
  const auto scores = model->forward(images);
  if (!torch::equal(scores, loaded->forward(images))) {
    throw std::runtime_error("the model loaded from finetuned.pt puts out other scores");
  }
  const auto right = (scores.argmax(1) == classes).sum().item<std::int64_t>();
  std::printf("finetuned.pt: loaded again, equal scores\n");
  std::printf("loss %.4f -> %.4f, fresh images right: %d of %d\n", before, after,
              static_cast<int>(right), static_cast<int>(batch));
  if (after > before / 2 || right < batch * 9 / 10) {
    throw std::runtime_error("it did not learn: the loss must be halved and 9 of 10 right");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  if (argc > 2 || first == "--help") {
    std::fputs(usage, first == "--help" ? stdout : stderr);
    return first == "--help" ? 0 : 2;
  }
  try {
    run(first);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
