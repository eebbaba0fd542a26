// torch.classes.spark.Backbone: the C++ module as a TorchScript class, for
// Python and for scripted models.

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <torch/custom_class.h>
#include <torch/version.h>

#include "spark-ffi/src/bridge.rs.h"
#include "spark/backbone.hpp"

namespace {

using Tensors = c10::Dict<std::string, at::Tensor>;

// What pickling keeps: the settings and every tensor by name; among these the
// network of a .pt2 file, under what is no parameter's name.
using State = std::tuple<std::string, Tensors>;
const char* const graph_key = "(graph)";

class Bound : public torch::CustomClassHolder {
 public:
  Bound(const std::string& config, const std::string& weights)
      : module_(std::make_shared<spark::Backbone>(config)) {
    if (!weights.empty()) {
      module_->load_weights(weights);
    }
  }

  explicit Bound(std::shared_ptr<spark::Backbone> module) : module_(std::move(module)) {}

  std::vector<at::Tensor> forward(const at::Tensor& images) { return module_->forward(images); }

  std::string config() { return module_->config(); }

  // Empty for models that have none.
  at::Tensor graph() {
    const at::Tensor graph = module_->graph();
    return graph.defined() ? graph : torch::empty({0}, torch::kUInt8);
  }

  static c10::intrusive_ptr<Bound> restore(const std::string& config, const at::Tensor& graph) {
    return c10::make_intrusive<Bound>(std::make_shared<spark::Backbone>(config, graph));
  }

  std::vector<std::int64_t> stages() { return of_levels(&SparkLevel::stage); }
  std::vector<std::int64_t> channels() { return of_levels(&SparkLevel::channels); }
  std::vector<std::int64_t> strides() { return of_levels(&SparkLevel::stride); }

  Tensors named_parameters() { return listed(module_->named_parameters()); }
  Tensors named_buffers() { return listed(module_->named_buffers()); }
  Tensors named_kept() {
    Tensors tensors;
    for (const auto& [name, tensor] : module_->kept()) {
      tensors.insert(name, tensor);
    }
    return tensors;
  }

  std::string modules() { return std::string(spark::modules(module_->handle())); }
  void set_norm(const std::string& name, bool training, double momentum) {
    spark::set_norm(module_->handle(), name, training, momentum);
  }

  void train(bool on) { module_->train(on); }
  void freeze(std::int64_t freeze_at) { module_->freeze(static_cast<int>(freeze_at)); }
  void set_norm_eval(bool on) { module_->set_norm_eval(on); }

  void to(const std::string& dtype, const std::string& device) {
    module_->convert(dtype, device);
  }

  std::string load(const std::string& path, bool strict) {
    return module_->load_weights(path, strict);
  }

  void save(const std::string& path, const std::string& naming) {
    module_->save_weights(path, naming);
  }

  static std::vector<std::string> models() {
    std::vector<std::string> names;
    for (const rust::String& name : spark::model_names()) {
      names.emplace_back(name);
    }
    return names;
  }

  // What torch.export asks an object for.
  Tensors flattened() {
    throw std::runtime_error(
        "a spark Backbone runs inside a library, which torch.export cannot trace: use torch.jit, "
        "or write the weights in timm's naming and export timm's model with them");
  }

  c10::intrusive_ptr<Bound> clone() {
    return c10::make_intrusive<Bound>(
        std::dynamic_pointer_cast<spark::Backbone>(module_->clone()));
  }

  State state() {
    Tensors tensors;
    for (const Tensors& part : {named_parameters(), named_buffers(), named_kept()}) {
      for (const auto& entry : part) {
        tensors.insert(entry.key(), entry.value().detach());
      }
    }
    const at::Tensor graph = module_->graph();
    if (graph.defined()) {
      tensors.insert(graph_key, graph);
    }
    return {config(), tensors};
  }

  // TorchScript keeps no autograd state: which parameters are frozen is in the
  // settings.
  static c10::intrusive_ptr<Bound> restored(const State& state) {
    const std::string& config = std::get<0>(state);
    const Tensors& saved = std::get<1>(state);
    auto bound = saved.contains(graph_key) ? restore(config, saved.at(graph_key))
                                           : c10::make_intrusive<Bound>(config, "");
    const torch::NoGradGuard no_grad;
    for (const Tensors& part :
         {bound->named_parameters(), bound->named_buffers(), bound->named_kept()}) {
      for (const auto& entry : part) {
        TORCH_CHECK(
            saved.contains(entry.key()), "the saved backbone lacks the tensor ", entry.key());
        entry.value().copy_(saved.at(entry.key()));
      }
    }
    return bound;
  }

 private:
  std::vector<std::int64_t> of_levels(std::int64_t SparkLevel::* member) const {
    std::vector<std::int64_t> values;
    for (const SparkLevel& level : module_->levels()) {
      values.push_back(level.*member);
    }
    return values;
  }

  static Tensors listed(const torch::OrderedDict<std::string, at::Tensor>& named) {
    Tensors tensors;
    for (const auto& item : named) {
      tensors.insert(item.key(), item.value());
    }
    return tensors;
  }

  std::shared_ptr<spark::Backbone> module_;
};

void register_class() {
  torch::class_<Bound>("spark", "Backbone")
      .def(
          torch::init<const std::string&, const std::string&>(),
          "",
          {torch::arg("config"), torch::arg("weights") = ""})
      .def("forward", &Bound::forward)
      .def("config", &Bound::config)
      .def("graph", &Bound::graph)
      .def("stages", &Bound::stages)
      .def("channels", &Bound::channels)
      .def("strides", &Bound::strides)
      .def("named_parameters", &Bound::named_parameters)
      .def("named_buffers", &Bound::named_buffers)
      .def("named_kept", &Bound::named_kept)
      .def("modules", &Bound::modules)
      .def("set_norm", &Bound::set_norm)
      .def("train", &Bound::train, "", {torch::arg("on") = true})
      .def("freeze", &Bound::freeze)
      .def("set_norm_eval", &Bound::set_norm_eval)
      .def("to", &Bound::to, "", {torch::arg("dtype") = "", torch::arg("device") = ""})
      .def("load", &Bound::load, "", {torch::arg("path"), torch::arg("strict") = true})
      .def("save", &Bound::save, "", {torch::arg("path"), torch::arg("naming") = ""})
      .def("clone", &Bound::clone)
      .def("__obj_flatten__", &Bound::flattened)
      .def_static("models", &Bound::models)
      .def_static("restore", &Bound::restore)
      .def_pickle(
          [](const c10::intrusive_ptr<Bound>& bound) -> State { return bound->state(); },
          [](State state) -> c10::intrusive_ptr<Bound> { return Bound::restored(state); });
}

// Registers the class when the library is loaded, and says why that could not
// be done. Registering a name twice would end the process, so a second copy of
// the library steps back and refuses to work instead.
std::string try_to_register() {
  if (torch::getCustomClass("__torch__.torch.classes.spark.Backbone")) {
    return "this process holds another copy of it already: load one copy only";
  }
  try {
    register_class();
  } catch (const std::exception& error) {
    return std::string("its TorchScript class cannot be registered: ") + error.what();
  }
  return "";
}

// Not a local of refusal(): the class must be there once the library is loaded.
const std::string reason = try_to_register();

}  // namespace

namespace spark {

rust::String refusal() {
  return reason;
}

}  // namespace spark
