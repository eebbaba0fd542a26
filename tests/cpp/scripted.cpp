// A program that knows TorchScript and nothing of our headers: loads a scripted
// module that holds a backbone, and trains it by one step.
//
//     scripted LIBRARY MODULE INPUT FOLDER
//
// INPUT is a tensor saved by Python. Each result goes to a file in FOLDER, its
// float32 values one after another.
#include <dlfcn.h>

#include <fstream>
#include <iostream>
#include <iterator>

#include <torch/script.h>
#include <torch/serialize.h>

namespace {

c10::IValue read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return torch::pickle_load({std::istreambuf_iterator<char>(file), {}});
}

void write(const std::string& path, const at::Tensor& tensor) {
  const auto values = tensor.detach().contiguous();
  std::ofstream(path, std::ios::binary)
      .write(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
}

}  // namespace

int main(int count, char** arguments) try {
  TORCH_CHECK(count == 5, "usage: scripted LIBRARY MODULE INPUT OUTPUT");
  // Registers the class; nothing of it is called by name.
  TORCH_CHECK(dlopen(arguments[1], RTLD_NOW) != nullptr, dlerror());
  torch::jit::Module module = torch::jit::load(arguments[2]);
  const auto images = read(arguments[3]).toTensor();

  const std::string folder = arguments[4];
  const auto evaluated = module.forward({images}).toTensorVector();
  for (std::size_t level = 0; level < evaluated.size(); ++level) {
    write(folder + "/eval" + std::to_string(level), evaluated[level]);
  }

  // Gradients flow through the module's method into the backbone's parameters.
  const auto parameters = module.get_method("parameters_of_backbone")({}).toGenericDict();
  module.get_method("set_training")({true});
  module.forward({images}).toTensorVector().back().square().mean().backward();
  for (const auto& item : parameters) {
    const auto gradient = item.value().toTensor().grad();
    if (gradient.defined()) {
      write(folder + "/grad." + item.key().toStringRef(), gradient);
    }
  }

  // The backbone's own refusals arrive as exceptions.
  try {
    module.forward({images[0]});
  } catch (const std::exception& error) {
    std::cout << error.what() << std::endl;
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << std::endl;
  return 1;
}
