// SparK backbones as modules of PyTorch's C++ frontend, header only over the
// C interface of libspark_backbone.so (spark_backbone.h).
//
//     auto backbone = std::make_shared<spark::Backbone>(
//         spark::Options("resnet50").weights("r50.pth").out_indices({1, 2, 3}));
//     register_module("backbone", backbone);
//     std::vector<torch::Tensor> pyramid = backbone->forward(images);
//
// The module's parameters and buffers are the library's own tensors, so
// torch::optim, to(), torch::save and torch::load, clone() and NoGradGuard
// treat it like any module. Needs C++17 and the libtorch release that the
// library was built against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <locale>
#include <memory>
#include <optional>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/version.h>

#include <spark_backbone.h>

namespace spark {

// What the library refuses: what() is a sentence that names the operand, its
// value and the rule, or the file and what is wrong with it.
class Error : public std::runtime_error {
 public:
  Error(SparkStatus status, const std::string& message)
      : std::runtime_error(message), status_(status) {}

  // Which kind of trouble it is, one of the SPARK_ constants.
  SparkStatus status() const noexcept { return status_; }

 private:
  SparkStatus status_;
};

namespace detail {

// A string that the library handed out, freed here.
inline std::string take(char* string) {
  const std::unique_ptr<char, decltype(&spark_string_free)> owner(string, &spark_string_free);
  return string == nullptr ? std::string() : std::string(string);
}

// `error` by reference: the call that `status` comes from is an argument beside
// it, and arguments are evaluated in any order.
inline void check(SparkStatus status, char* const& error) {
  if (status != SPARK_OK) {
    throw Error(status, take(error));
  }
}

// An at::Tensor that the library handed out, freed here.
inline torch::Tensor take(SparkTensor* tensor) {
  const std::unique_ptr<SparkTensor, decltype(&spark_tensor_destroy)> owner(
      tensor, &spark_tensor_destroy);
  return *reinterpret_cast<const torch::Tensor*>(tensor);
}

inline const SparkTensor* borrow(const torch::Tensor& tensor) {
  return reinterpret_cast<const SparkTensor*>(&tensor);
}

// A program that was compiled against another interface or another libtorch
// must not go on: its tensors have another layout.
inline void check_versions() {
  if (spark_abi_version() != SPARK_ABI_VERSION) {
    throw Error(
        SPARK_INVALID,
        "libspark_backbone's interface is version " + std::to_string(spark_abi_version()) +
            ", but this program was compiled for version " + std::to_string(SPARK_ABI_VERSION) +
            ": compile it with the library's own headers");
  }
  const std::string library = spark_libtorch_version();
  const std::string program = std::to_string(TORCH_VERSION_MAJOR) + "." +
      std::to_string(TORCH_VERSION_MINOR) + "." + std::to_string(TORCH_VERSION_PATCH);
  if (library != program) {
    throw Error(
        SPARK_INVALID,
        "libspark_backbone is built against libtorch " + library +
            ", but this program against libtorch " + program + ": use the same for both");
  }
}

// Whether the JSON object `json` says `"key": true`. Inside a string the quotes
// around `key` would be escaped, so it is found where it is a key only.
inline bool is_true(const std::string& json, const std::string& key) {
  const std::size_t at = json.find('"' + key + '"');
  if (at == std::string::npos) {
    return false;
  }
  const std::size_t value = json.find_first_not_of(" \t\r\n:", at + key.size() + 2);
  return value != std::string::npos && json.compare(value, 4, "true") == 0;
}

inline std::string quote(const std::string& text) {
  static const char* const hex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char character : text) {
    const auto code = static_cast<unsigned char>(character);
    if (character == '"' || character == '\\') {
      quoted += '\\';
      quoted += character;
    } else if (code < 0x20) {
      quoted += "\\u00";
      quoted += hex[code >> 4];
      quoted += hex[code & 15];
    } else {
      quoted += character;
    }
  }
  return quoted + '"';
}

}  // namespace detail

// What a backbone is created with; every setting but the model (a name or a .pt2
// file) has a default, see spark_backbone_create in spark_backbone.h.
class Options {
 public:
  explicit Options(const std::string& model) { set("model", detail::quote(model)); }

  Options& weights(const std::string& path) { return set("weights", detail::quote(path)); }
  Options& strict(bool strict) { return set("strict", strict ? "true" : "false"); }
  Options& in_chans(std::int64_t count) { return set("in_chans", std::to_string(count)); }
  Options& drop_path_rate(double rate) {
    // Not std::to_string, which rounds to six places and obeys the locale.
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text.precision(17);
    text << rate;
    return set("drop_path_rate", text.str());
  }
  Options& dtype(const std::string& name) { return set("dtype", detail::quote(name)); }
  Options& device(const std::string& name) { return set("device", detail::quote(name)); }
  Options& freeze_at(int index) { return set("freeze_at", std::to_string(index)); }
  Options& norm_eval(bool on) { return set("norm_eval", on ? "true" : "false"); }

  Options& out_indices(const std::vector<std::int64_t>& stages) {
    std::string list = "[";
    for (const std::int64_t stage : stages) {
      list += (list.size() > 1 ? ", " : "") + std::to_string(stage);
    }
    return set("out_indices", list + "]");
  }

  // The JSON object that the library takes.
  std::string json() const {
    std::string object = "{";
    for (const auto& setting : settings_) {
      object += (object.size() > 1 ? ", " : "") + detail::quote(setting.first) + ": " +
          setting.second;
    }
    return object + "}";
  }

 private:
  // The last value given to a key counts.
  Options& set(const std::string& key, const std::string& value) {
    for (auto& setting : settings_) {
      if (setting.first == key) {
        setting.second = value;
        return *this;
      }
    }
    settings_.emplace_back(key, value);
    return *this;
  }

  std::vector<std::pair<std::string, std::string>> settings_;
};

// A pyramid of feature maps from an image.
class Backbone : public torch::nn::Module {
 public:
  explicit Backbone(const Options& options) : Backbone(options.json()) {}

  // `config` is a model's name, a .pt2 file or a JSON object as spark_backbone_create takes
  // it. Throws spark::Error.
  explicit Backbone(const std::string& config)
      : torch::nn::Module("spark::Backbone"), handle_(create(config)) {
    register_tensors();
  }

  explicit Backbone(const char* config) : Backbone(std::string(config)) {}

  // The network of a .pt2 file that is not needed again: `config` and `graph` are another
  // module's config() and graph(). Parameters and buffers have no values yet.
  Backbone(const std::string& config, const torch::Tensor& graph)
      : torch::nn::Module("spark::Backbone"), handle_(restore(config, graph)) {
    register_tensors();
  }

  // A copy would be the same backbone twice; clone() makes another.
  Backbone(const Backbone&) = delete;
  Backbone& operator=(const Backbone&) = delete;

  // The pyramid of `images`, [N, in_chans, H, W], finest first, one map a
  // level. May run in several threads at once. Throws spark::Error.
  //
  // Not const, since torch::nn::AnyModule takes no const member functions.
  std::vector<torch::Tensor> forward(const torch::Tensor& images) {
    std::vector<SparkTensor*> outputs(levels_.size(), nullptr);
    std::vector<torch::Tensor> maps;
    maps.reserve(outputs.size());
    char* error = nullptr;
    detail::check(
        spark_backbone_forward(
            handle_.get(), detail::borrow(images), outputs.data(), outputs.size(), &error),
        error);
    for (SparkTensor* output : outputs) {
      maps.push_back(detail::take(output));
    }
    return maps;
  }

  // Stage, channels and stride of each map that forward puts out.
  const std::vector<SparkLevel>& levels() const noexcept { return levels_; }

  // What no map depends on, by name: no parameters or buffers of this module, but
  // part of what save_weights writes.
  std::vector<std::pair<std::string, torch::Tensor>> kept() const { return tensors(SPARK_KEPT); }

  // The library's object, for functions of spark_backbone.h; stays this module's.
  const SparkBackbone* handle() const noexcept { return handle_.get(); }

  // The settings as they are now, as spark_backbone_create takes them.
  std::string config() const {
    char* json = nullptr;
    char* error = nullptr;
    detail::check(spark_backbone_config(handle_.get(), &json, &error), error);
    return detail::take(json);
  }

  // What the network of a .pt2 file computes, as bytes; undefined for other models.
  torch::Tensor graph() const {
    SparkTensor* graph = nullptr;
    char* error = nullptr;
    detail::check(spark_backbone_graph(handle_.get(), &graph, &error), error);
    return graph == nullptr ? torch::Tensor() : detail::take(graph);
  }

  // Freezes the first stages: 0 none, 1 the stem, 2 the stem and the first
  // stage, … Frozen batch norms keep their statistics.
  void freeze(int freeze_at) {
    char* error = nullptr;
    detail::check(spark_backbone_freeze(handle_.get(), freeze_at, &error), error);
  }

  // Whether batch norms use their running statistics in training, too.
  void set_norm_eval(bool on) {
    char* error = nullptr;
    detail::check(spark_backbone_set_norm_eval(handle_.get(), on ? 1 : 0, &error), error);
  }

  // to(), by PyTorch's names ("float64", "cuda:1"); empty leaves it as it is.
  void convert(const std::string& dtype, const std::string& device) {
    char* error = nullptr;
    detail::check(
        spark_backbone_to(
            handle_.get(),
            dtype.empty() ? nullptr : dtype.c_str(),
            device.empty() ? nullptr : device.c_str(),
            &error),
        error);
  }

  // Loads a weight file of any framework; returns what matched in words.
  std::string load_weights(const std::string& path, bool strict = true) {
    char* report = nullptr;
    char* error = nullptr;
    detail::check(
        spark_backbone_load(handle_.get(), path.c_str(), strict ? 1 : 0, &report, &error), error);
    return detail::take(report);
  }

  // Writes the encoder; `path` ends in .safetensors, .pth or .pkl, or .pt2 for a
  // network from such a file. `naming` is a framework's, or empty for the model's own.
  void save_weights(const std::string& path, const std::string& naming = "") const {
    char* error = nullptr;
    detail::check(
        spark_backbone_save(
            handle_.get(), path.c_str(), naming.empty() ? nullptr : naming.c_str(), &error),
        error);
  }

  // Training or evaluation (eval() calls it, too).
  void train(bool on = true) override {
    torch::nn::Module::train(on);
    char* error = nullptr;
    detail::check(spark_backbone_set_training(handle_.get(), on ? 1 : 0, &error), error);
  }

  // A deep copy, moved to `device` if one is given.
  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<torch::Device>& device = std::nullopt) const override {
    SparkBackbone* copy = nullptr;
    char* error = nullptr;
    detail::check(spark_backbone_clone(handle_.get(), &copy, &error), error);
    // The constructor is private, so not std::make_shared.
    std::shared_ptr<Backbone> module(new Backbone(Handle(copy, &spark_backbone_destroy)));
    if (device.has_value()) {
      module->to(*device);
    }
    return module;
  }

  void pretty_print(std::ostream& stream) const override {
    stream << "spark::Backbone(" << config() << ")";
  }

 private:
  using Handle = std::unique_ptr<SparkBackbone, decltype(&spark_backbone_destroy)>;

  Backbone& operator=(Backbone&&) = default;

  // What torch::nn::Cloneable calls on the fresh backbone that a copied outer
  // module made in its reset(); it becomes a clone of `other`.
  void clone_(torch::nn::Module& other, const std::optional<torch::Device>& device) override {
    const auto copy = std::dynamic_pointer_cast<Backbone>(other.clone(device));
    if (copy == nullptr) {
      throw Error(
          SPARK_INVALID,
          "the module to clone is " + other.name() + ", but it must be spark::Backbone: reset() "
          "must register modules of the same types in the same order each time");
    }
    *this = std::move(*copy);
  }

  explicit Backbone(Handle handle)
      : torch::nn::Module("spark::Backbone"), handle_(std::move(handle)) {
    register_tensors();
  }

  static Handle create(const std::string& config) {
    detail::check_versions();
    SparkBackbone* backbone = nullptr;
    char* error = nullptr;
    detail::check(spark_backbone_create(config.c_str(), &backbone, &error), error);
    return Handle(backbone, &spark_backbone_destroy);
  }

  static Handle restore(const std::string& config, const torch::Tensor& graph) {
    detail::check_versions();
    SparkBackbone* backbone = nullptr;
    char* error = nullptr;
    detail::check(
        spark_backbone_restore(config.c_str(), detail::borrow(graph), &backbone, &error), error);
    return Handle(backbone, &spark_backbone_destroy);
  }

  void register_tensors() {
    read_levels();
    register_kind(SPARK_PARAMETER);
    register_kind(SPARK_BUFFER);
    // The settings may have asked for evaluation.
    torch::nn::Module::train(detail::is_true(config(), "training"));
  }

  void read_levels() {
    char* error = nullptr;
    std::size_t count = 0;
    detail::check(spark_backbone_level_count(handle_.get(), &count, &error), error);
    levels_.resize(count);
    for (std::size_t index = 0; index < count; ++index) {
      detail::check(
          spark_backbone_level(handle_.get(), index, &levels_[index], &error), error);
    }
  }

  void register_kind(std::int32_t kind) {
    for (auto& [name, tensor] : tensors(kind)) {
      register_tensor(name, std::move(tensor), kind);
    }
  }

  std::vector<std::pair<std::string, torch::Tensor>> tensors(std::int32_t kind) const {
    std::vector<std::pair<std::string, torch::Tensor>> tensors;
    char* error = nullptr;
    std::size_t count = 0;
    detail::check(spark_backbone_tensor_count(handle_.get(), kind, &count, &error), error);
    for (std::size_t index = 0; index < count; ++index) {
      const char* name = nullptr;
      SparkTensor* tensor = nullptr;
      detail::check(
          spark_backbone_tensor(handle_.get(), kind, index, &name, &tensor, &error), error);
      tensors.emplace_back(name, detail::take(tensor));
    }
    return tensors;
  }

  // A module's own names hold no dots: `layer1.0.conv1.weight` becomes modules
  // in modules, so that named_parameters() has the name whole.
  void register_tensor(const std::string& name, torch::Tensor tensor, std::int32_t kind) {
    torch::nn::Module* owner = this;
    std::size_t start = 0;
    for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', start)) {
      const std::string part = name.substr(start, dot - start);
      const auto children = owner->named_children();
      const auto* child = children.find(part);
      owner = child != nullptr
          ? child->get()
          : owner->register_module(part, std::make_shared<torch::nn::Module>(part)).get();
      start = dot + 1;
    }
    if (kind == SPARK_PARAMETER) {
      const bool trained = tensor.requires_grad();
      owner->register_parameter(name.substr(start), std::move(tensor), trained);
    } else {
      owner->register_buffer(name.substr(start), std::move(tensor));
    }
  }

  Handle handle_;
  std::vector<SparkLevel> levels_;
};

}  // namespace spark
