// What makes spark::Backbone a module like any other.
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <torch/torch.h>

#include <spark/backbone.hpp>

#include "expect.hpp"
#include "plain_resnet.hpp"

namespace checks {

inline std::shared_ptr<spark::Backbone> make() {
  return std::make_shared<spark::Backbone>("resnet18");
}

inline torch::Tensor image() { return torch::rand({2, 3, 64, 64}); }

// The coarsest map in evaluation, without gradients.
inline torch::Tensor features(spark::Backbone& backbone, const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  const bool training = backbone.is_training();
  backbone.eval();
  const auto map = backbone.forward(images).back();
  backbone.train(training);
  return map;
}

// Every parameter and buffer is equal, by name.
inline bool equal_tensors(const torch::nn::Module& a, const torch::nn::Module& b) {
  const auto same = [](const auto& left, const auto& right) {
    if (left.size() != right.size()) {
      return false;
    }
    for (const auto& item : left) {
      const auto* other = right.find(item.key());
      if (other == nullptr || !torch::equal(item.value(), *other)) {
        return false;
      }
    }
    return true;
  };
  return same(a.named_parameters(), b.named_parameters()) &&
      same(a.named_buffers(), b.named_buffers());
}

// A head on the backbone that torch::nn::Cloneable copies: the fresh backbone
// that reset() makes must become a clone of the old one.
struct Detector : torch::nn::Cloneable<Detector> {
  Detector() { reset(); }

  void reset() override {
    backbone = register_module("backbone", make());
    head = register_module("head", torch::nn::Linear(512, 2));
  }

  std::shared_ptr<spark::Backbone> backbone;
  torch::nn::Linear head{nullptr};
};

inline void check_names_and_shape() {
  const auto backbone = make();
  const auto parameters = backbone->named_parameters();
  EXPECT(parameters.size() == 60 && backbone->named_buffers().size() == 60);
  EXPECT(parameters["conv1.weight"].sizes() == torch::IntArrayRef({64, 3, 7, 7}));
  EXPECT(parameters.contains("layer2.0.downsample.0.weight"));
  EXPECT(backbone->named_buffers().contains("layer4.1.bn2.running_mean"));
  EXPECT(parameters["conv1.weight"].is_leaf() && parameters["conv1.weight"].requires_grad());
  EXPECT(backbone->levels().size() == 4 && backbone->levels()[3].stride == 32);
  std::ostringstream text;
  text << *backbone;
  EXPECT(text.str().find("resnet18") != std::string::npos);
  // An AnyModule, as torch::nn::Sequential holds it.
  torch::nn::AnyModule any(backbone);
  EXPECT(any.forward<std::vector<torch::Tensor>>(image()).size() == 4);
}

// Two steps of an optimizer on the backbone and on a plain torch::nn network
// with the same parameters: the same losses, and the same parameters and
// running statistics afterwards. In float64, where sums in another order
// differ by 1e-15 of their size; Adam divides gradients by their own size, so
// that small ones are as good as large ones.
inline void check_training_step() {
  const auto backbone = make();
  plain::ResNet reference;
  const auto ours = backbone->named_parameters();
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : reference->named_parameters()) {
      // Fresh blocks begin as the identity; not so here, that all gradients
      // differ from zero.
      if (parameter.value().dim() == 1) {
        ours[parameter.key()].add_(0.5);
      }
      parameter.value().copy_(ours[parameter.key()]);
    }
  }
  backbone->to(torch::kFloat64);
  reference->to(torch::kFloat64);
  EXPECT(equal_tensors(*backbone, *reference));
  using Options = torch::optim::AdamWOptions;
  torch::optim::AdamW our_optimizer(backbone->parameters(), Options(1e-3));
  torch::optim::AdamW reference_optimizer(reference->parameters(), Options(1e-3));
  for (int step = 0; step < 2; ++step) {
    const auto images = image().to(torch::kFloat64);
    const auto our_loss = backbone->forward(images).back().square().mean();
    const auto reference_loss = reference->forward(images).back().square().mean();
    EXPECT(torch::allclose(our_loss, reference_loss, 1e-10));
    our_optimizer.zero_grad();
    our_loss.backward();
    our_optimizer.step();
    reference_optimizer.zero_grad();
    reference_loss.backward();
    reference_optimizer.step();
  }
  for (const auto& parameter : ours) {
    EXPECT(parameter.value().grad().abs().sum().item<double>() > 0);
  }
  const auto theirs = reference->named_parameters();
  for (const auto& parameter : ours) {
    EXPECT(torch::allclose(parameter.value(), theirs[parameter.key()], 1e-7, 1e-9));
  }
  const auto statistics = reference->named_buffers();
  for (const auto& buffer : backbone->named_buffers()) {
    EXPECT(torch::allclose(buffer.value().to(torch::kFloat64),
                           statistics[buffer.key()].to(torch::kFloat64), 1e-9, 1e-12));
  }
}

inline void check_conversion() {
  const auto backbone = make();
  const auto images = image();
  const auto before = features(*backbone, images);
  backbone->to(torch::kFloat64);
  EXPECT(backbone->parameters()[0].scalar_type() == torch::kFloat64);
  EXPECT(backbone->config().find("float64") != std::string::npos);
  const auto in_double = features(*backbone, images.to(torch::kFloat64));
  EXPECT(in_double.scalar_type() == torch::kFloat64);
  // Float32 keeps 7 digits; twenty layers and sums of 4608 products lose three.
  EXPECT(torch::allclose(in_double.to(torch::kFloat32), before, 1e-3, 1e-4));
  backbone->to(torch::Device("cpu"), torch::kFloat32);
  // Every float32 number is a float64, so the way there and back loses nothing.
  EXPECT(torch::equal(features(*backbone, images), before));
  backbone->convert("bfloat16", "");
  EXPECT(backbone->parameters()[0].scalar_type() == torch::kBFloat16);
}

inline void check_files(const std::string& directory) {
  const auto backbone = make(), other = make();
  backbone->forward(image());  // moves the running statistics
  EXPECT(!equal_tensors(*backbone, *other));
  torch::save(backbone, directory + "/module.pt");
  {
    auto loaded = other;
    torch::load(loaded, directory + "/module.pt");
  }
  EXPECT(equal_tensors(*backbone, *other));
  const auto images = image();
  EXPECT(torch::equal(features(*backbone, images), features(*other, images)));

  const auto third = make();
  backbone->save_weights(directory + "/weights.safetensors", "timm");
  EXPECT(!third->load_weights(directory + "/weights.safetensors").empty());
  EXPECT(equal_tensors(*backbone, *third));
}

inline void check_clones() {
  const auto backbone = make();
  backbone->forward(image());
  backbone->freeze(2);
  backbone->eval();
  const auto copy = std::dynamic_pointer_cast<spark::Backbone>(backbone->clone());
  EXPECT(copy != nullptr && equal_tensors(*backbone, *copy));
  EXPECT(!copy->is_training() && copy->config() == backbone->config());
  EXPECT(!copy->named_parameters()["conv1.weight"].requires_grad());
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : copy->parameters()) {
      parameter.add_(1);
    }
  }
  EXPECT(!equal_tensors(*backbone, *copy));  // memory of its own

  const auto detector = std::make_shared<Detector>();
  detector->backbone->forward(image());
  const auto twin = std::dynamic_pointer_cast<Detector>(detector->clone());
  EXPECT(twin != nullptr && equal_tensors(*detector, *twin));
  const auto images = image();
  const auto expected = features(*detector->backbone, images);
  // The library's tensors were copied, too, not the module's alone.
  EXPECT(torch::equal(features(*twin->backbone, images), expected));
  {
    const torch::NoGradGuard no_grad;
    twin->backbone->named_parameters()["conv1.weight"].mul_(2);
  }
  EXPECT(!torch::equal(features(*twin->backbone, images), expected));
  EXPECT(torch::equal(features(*detector->backbone, images), expected));
}

inline void check_modes() {
  const auto backbone = make();
  const auto mean = backbone->named_buffers()["bn1.running_mean"];  // shares its storage
  const auto images = image();
  {
    const torch::NoGradGuard no_grad;
    EXPECT(!backbone->forward(images).back().requires_grad());
  }
  EXPECT(backbone->forward(images).back().requires_grad());

  auto before = mean.clone();
  backbone->eval();
  EXPECT(!backbone->is_training());
  backbone->forward(images);
  EXPECT(torch::equal(mean, before));
  backbone->train();
  backbone->forward(images);
  EXPECT(!torch::equal(mean, before));

  before = mean.clone();
  backbone->set_norm_eval(true);
  backbone->forward(images);
  EXPECT(torch::equal(mean, before));
  EXPECT(!spark::Backbone("{\"model\": \"resnet18\", \"training\": false}").is_training());

  // As a submodule it follows the outer module.
  const auto detector = std::make_shared<Detector>();
  detector->eval();
  EXPECT(detector->backbone->config().find("\"training\":false") != std::string::npos);
}

inline void check_freezing() {
  spark::Backbone backbone(spark::Options("resnet18").freeze_at(2));
  const auto mean = backbone.named_buffers()["layer1.0.bn1.running_mean"].clone();
  backbone.forward(image()).back().sum().backward();
  for (const auto& parameter : backbone.named_parameters()) {
    const std::string& name = parameter.key();
    const bool frozen = name.find("layer") == std::string::npos || name.find("layer1") == 0;
    EXPECT(parameter.value().requires_grad() == !frozen);
    EXPECT(parameter.value().grad().defined() == !frozen);
  }
  EXPECT(torch::equal(backbone.named_buffers()["layer1.0.bn1.running_mean"], mean));
  backbone.freeze(0);
  EXPECT(backbone.named_parameters()["conv1.weight"].requires_grad());
  backbone.zero_grad();
  EXPECT(!backbone.named_parameters()["layer4.0.conv1.weight"].grad().defined());
}

// What no map depends on is not the module's, but in its files.
inline void check_what_is_kept(const std::string& directory) {
  spark::Backbone backbone(spark::Options("convnext_atto").out_indices({0, 1}));
  const auto maps = backbone.forward(image());
  (maps[0].square().mean() + maps[1].square().mean()).backward();
  for (const auto& parameter : backbone.named_parameters()) {
    EXPECT(parameter.value().is_contiguous() && parameter.value().grad().is_contiguous());
  }
  const auto kept = backbone.kept();
  EXPECT(kept.size() == 82 && backbone.named_parameters().size() == 44);
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : kept) {
    EXPECT(!backbone.named_parameters().contains(name));
    tensor.add_(1);
  }
  // Conversions are of the module's; files have one type.
  backbone.to(torch::kDouble);
  EXPECT(kept[0].second.dtype() == torch::kFloat);
  const std::string path = directory + "/kept.safetensors";
  backbone.save_weights(path);
  spark::Backbone whole(spark::Options("convnext_atto").weights(path).dtype("float64"));
  const auto tensors = whole.named_parameters();
  const auto copy = std::dynamic_pointer_cast<spark::Backbone>(backbone.clone())->kept();
  for (std::size_t index = 0; index < kept.size(); ++index) {
    const auto& [name, tensor] = kept[index];
    const auto* loaded = tensors.find(name);
    EXPECT(loaded == nullptr || torch::equal(*loaded, tensor.to(torch::kDouble)));
    EXPECT(copy[index].first == name && torch::equal(copy[index].second, tensor));
  }
}

inline void check_module(const std::string& directory) {
  torch::manual_seed(0);
  check_names_and_shape();
  check_training_step();
  check_conversion();
  check_files(directory);
  check_what_is_kept(directory);
  check_clones();
  check_modes();
  check_freezing();
}

}  // namespace checks
