/* A backbone of one's own as a plugin: a network written with torch::nn that
 * implements spark_backbone.h, to be loaded by `backbone::plugin` or by
 * whatever host speaks that interface.
 *
 *     g++ -std=c++17 -O2 -shared -fPIC -fvisibility=hidden own_backbone.cpp \
 *         -I PREFIX/include -isystem LIBTORCH/include \
 *         -isystem LIBTORCH/include/torch/csrc/api/include \
 *         -L LIBTORCH/lib -ltorch_cpu -lc10 -o libown_backbone.so
 *
 * The network: two stages of 3×3 convolutions with stride 2, batch norm and
 * ReLU. Replace `Network`; the rest is the same for any.
 */

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <torch/version.h>

#include <spark_backbone.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Network : torch::nn::Module {
  Network() {
    std::int64_t from = 3;
    for (const std::int64_t width : {16, 32}) {
      const auto options = torch::nn::Conv2dOptions(from, width, 3).stride(2).padding(1).bias(false);
      stages->push_back(torch::nn::Sequential(
          torch::nn::Conv2d(options), torch::nn::BatchNorm2d(width), torch::nn::ReLU()));
      levels.push_back({static_cast<std::int64_t>(levels.size()), width, 2 << levels.size()});
      from = width;
    }
    register_module("stages", stages);
  }

  std::vector<torch::Tensor> forward(torch::Tensor x) {
    std::vector<torch::Tensor> maps;
    for (const auto& stage : *stages) {
      x = stage->as<torch::nn::Sequential>()->forward(x);
      maps.push_back(x);
    }
    return maps;
  }

  torch::nn::ModuleList stages;
  std::vector<SparkLevel> levels;
};

// What the interface calls a backbone. Names are kept, since C borrows them.
struct Own {
  Own() {
    for (const auto& item : network.named_parameters()) {
      names[SPARK_PARAMETER].push_back(item.key());
      tensors[SPARK_PARAMETER].push_back(item.value());
    }
    for (const auto& item : network.named_buffers()) {
      names[SPARK_BUFFER].push_back(item.key());
      tensors[SPARK_BUFFER].push_back(item.value());
    }
  }

  Network network;
  std::vector<std::string> names[2];
  std::vector<torch::Tensor> tensors[2];
};

Own& own(const SparkBackbone* backbone) {
  return *reinterpret_cast<Own*>(const_cast<SparkBackbone*>(backbone));
}

char* copied(const std::string& text) {
  return strdup(text.c_str());
}

// Runs `body`; no exception leaves.
template <typename Body>
SparkStatus call(char** error, Body body) {
  try {
    body();
    return SPARK_OK;
  } catch (const c10::Error& problem) {
    if (error != nullptr) *error = copied(problem.what_without_backtrace());
    return SPARK_TORCH;
  } catch (const std::exception& problem) {
    if (error != nullptr) *error = copied(problem.what());
    return SPARK_INVALID;
  }
}

SparkStatus refuse(char** error, const std::string& sentence) {
  return call(error, [&] { throw std::invalid_argument(sentence); });
}

}  // namespace

EXPORT std::uint32_t spark_abi_version() {
  return SPARK_ABI_VERSION;
}

EXPORT const char* spark_library_version() {
  return "1.0.0";
}

EXPORT const char* spark_libtorch_version() {
  static const std::string version = std::to_string(TORCH_VERSION_MAJOR) + "." +
      std::to_string(TORCH_VERSION_MINOR) + "." + std::to_string(TORCH_VERSION_PATCH);
  return version.c_str();
}

EXPORT SparkStatus spark_backbone_create(const char* config, SparkBackbone** backbone, char** error) {
  // This network has no settings; a name keeps hosts from mistaking it.
  if (std::strcmp(config, "own") != 0) {
    return refuse(error, "config is \"" + std::string(config) + "\", but it must be \"own\"");
  }
  return call(error, [&] { *backbone = reinterpret_cast<SparkBackbone*>(new Own); });
}

EXPORT void spark_backbone_destroy(SparkBackbone* backbone) {
  delete reinterpret_cast<Own*>(backbone);
}

EXPORT SparkStatus spark_backbone_config(const SparkBackbone*, char** json, char**) {
  *json = copied("{\"model\": \"own\", \"in_chans\": 3}");
  return SPARK_OK;
}

EXPORT SparkStatus spark_backbone_level_count(
    const SparkBackbone* backbone, std::size_t* count, char**) {
  *count = own(backbone).network.levels.size();
  return SPARK_OK;
}

EXPORT SparkStatus spark_backbone_level(
    const SparkBackbone* backbone, std::size_t index, SparkLevel* level, char** error) {
  return call(error, [&] { *level = own(backbone).network.levels.at(index); });
}

EXPORT SparkStatus spark_backbone_forward(
    const SparkBackbone* backbone,
    const SparkTensor* input,
    SparkTensor** outputs,
    std::size_t count,
    char** error) {
  return call(error, [&] {
    const auto maps =
        own(backbone).network.forward(*reinterpret_cast<const torch::Tensor*>(input));
    TORCH_CHECK(count == maps.size(), "count is ", count, ", but there are ", maps.size(), " maps");
    for (std::size_t index = 0; index < count; ++index) {
      outputs[index] = reinterpret_cast<SparkTensor*>(new torch::Tensor(maps[index]));
    }
  });
}

EXPORT SparkStatus spark_backbone_set_training(
    SparkBackbone* backbone, std::int32_t training, char** error) {
  return call(error, [&] { own(backbone).network.train(training != 0); });
}

EXPORT SparkStatus spark_backbone_freeze(SparkBackbone*, std::int32_t freeze_at, char** error) {
  return freeze_at == 0 ? SPARK_OK : refuse(error, "freeze_at must be 0: nothing can be frozen");
}

EXPORT SparkStatus spark_backbone_set_norm_eval(SparkBackbone*, std::int32_t on, char** error) {
  return on == 0 ? SPARK_OK : refuse(error, "norm_eval must be off: it is not offered");
}

EXPORT SparkStatus spark_backbone_tensor_count(
    const SparkBackbone* backbone, std::int32_t kind, std::size_t* count, char**) {
  *count = own(backbone).tensors[kind].size();
  return SPARK_OK;
}

EXPORT SparkStatus spark_backbone_tensor(
    const SparkBackbone* backbone,
    std::int32_t kind,
    std::size_t index,
    const char** name,
    SparkTensor** tensor,
    char** error) {
  return call(error, [&] {
    *name = own(backbone).names[kind].at(index).c_str();
    *tensor = reinterpret_cast<SparkTensor*>(new torch::Tensor(own(backbone).tensors[kind][index]));
  });
}

EXPORT SparkStatus spark_backbone_load(
    SparkBackbone*, const char*, std::int32_t, char**, char** error) {
  return refuse(error, "weights cannot be loaded: it is not offered");
}

EXPORT void spark_tensor_destroy(SparkTensor* tensor) {
  delete reinterpret_cast<torch::Tensor*>(tensor);
}

EXPORT void spark_string_free(char* string) {
  std::free(string);
}
