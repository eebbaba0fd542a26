// A C++ program that uses spark::Backbone as any torch::nn::Module is used.
//
//     host module DIR                               parameters, training, copies, files
//     host graph FILE.pt2 DIR                       training and copies of a network of PyTorch's
//     host errors DIR                               every bad input, prints what it sees
//     host threads                                  8 threads' forwards against serial ones
//     host rounds WEIGHTS N                         N rounds of create, forward, destroy
//     host features MODEL WEIGHTS INPUT SIDE OUT    writes OUT.0, OUT.1, …
//
// Exits with 1 and names the line where something is not as it must be.

#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <malloc.h>
#include <unistd.h>

#include <torch/torch.h>

#include <spark/backbone.hpp>

#include "expect.hpp"
#include "graph_checks.hpp"
#include "module_checks.hpp"

namespace {

// Calls what must throw a spark::Error with this status and both parts in its
// sentence.
void expect_refusal(
    const char* what,
    SparkStatus status,
    const std::string& first,
    const std::string& second,
    const std::function<void()>& call) {
  try {
    call();
  } catch (const spark::Error& error) {
    const std::string text = error.what();
    std::printf("%s: %s\n", what, error.what());
    if (error.status() != status || text.find(first) == std::string::npos ||
        text.find(second) == std::string::npos) {
      throw std::logic_error(
          std::string(what) + ": expected status " + std::to_string(status) + " with \"" + first +
          "\" and \"" + second + "\", got " + std::to_string(error.status()) + ": " + text);
    }
    return;
  }
  throw std::logic_error(std::string(what) + " was not refused");
}

void check_errors(const std::string& directory) {
  using spark::Backbone;
  using spark::Options;
  const auto refused = [](const char* what, const char* first, const char* second,
                          const std::function<void()>& call) {
    expect_refusal(what, SPARK_INVALID, first, second, call);
  };
  const auto options = [] { return Options("resnet18"); };
  refused("unknown model", "resnet17", "resnet18", [] { Backbone("resnet17"); });
  refused("malformed JSON", "config", "JSON", [] { Backbone("{\"model\": "); });
  refused("unknown key", "modell", "model", [] { Backbone("{\"modell\": \"resnet18\"}"); });
  refused("NUL in a name", "model", "", [] { Backbone(Options(std::string("resnet18\0x", 10))); });
  refused("no UTF-8", "config", "UTF-8", [] { Backbone("\xff"); });
  refused("in_chans", "in_chans is 0", "", [&] { Backbone(options().in_chans(0)); });
  refused("out_indices", "out_indices is [7]", "", [&] { Backbone(options().out_indices({7})); });
  refused("no stage", "out_indices is []", "", [&] { Backbone(options().out_indices({})); });
  refused("drop path", "drop_path_rate", "2", [&] { Backbone(options().drop_path_rate(2)); });
  refused("dtype", "dtype is \"int8\"", "", [&] { Backbone(options().dtype("int8")); });
  refused("device", "device is \"abacus\"", "", [&] { Backbone(options().device("abacus")); });
  refused("freeze_at", "freeze_at is 6", "", [&] { Backbone(options().freeze_at(6)); });
  expect_refusal("missing file", SPARK_IO, "/nowhere/w.pth", "No such file", [&] {
    Backbone(options().weights("/nowhere/w.pth"));
  });

  Backbone backbone("resnet18");
  const auto image = torch::rand({2, 3, 32, 32});
  refused("one value to learn from", "[1, 3, 32, 32]", "more than 1 value per channel", [&] {
    backbone.forward(torch::rand({1, 3, 32, 32}));
  });
  refused("channels", "[1, 1, 32, 32]", "[N, 3, H, W]", [&] {
    backbone.forward(torch::rand({1, 1, 32, 32}));
  });
  refused("three dimensions", "[3, 32, 32]", "", [&] { backbone.forward(image[0]); });
  refused("too small", "[1, 3, 31, 32]", "32", [&] {
    backbone.forward(torch::rand({1, 3, 31, 32}));
  });
  refused("no image", "input", "[0, 3, 32, 32]", [&] {
    backbone.forward(torch::rand({0, 3, 32, 32}));
  });
  refused("integers", "input", "Int64", [&] { backbone.forward(image.to(torch::kInt64)); });
  refused("other type", "float64", "float32", [&] { backbone.forward(image.to(torch::kFloat64)); });
  refused("other device", "device", "meta", [&] { backbone.forward(image.to(torch::kMeta)); });
  refused("undefined", "input", "undefined", [&] { backbone.forward(torch::Tensor()); });
  refused("sparse", "input", "sparse", [&] { backbone.forward(image.to_sparse()); });
  refused("later freeze", "freeze_at is -1", "", [&] { backbone.freeze(-1); });
  refused("save's ending", "w.txt", "", [&] { backbone.save_weights(directory + "/w.txt"); });
  refused("save's naming", "keras", "timm", [&] {
    backbone.save_weights(directory + "/w.pth", "keras");
  });
  expect_refusal("save's folder", SPARK_IO, "/nowhere/w.pth", "", [&] {
    backbone.save_weights("/nowhere/w.pth");
  });
  Backbone("resnet50").save_weights(directory + "/r50.pth");
  expect_refusal("another model's weights", SPARK_WEIGHTS, "layer1", "", [&] {
    backbone.load_weights(directory + "/r50.pth");
  });
  std::ofstream(directory + "/poem.pth") << "Roses are red.";
  expect_refusal("no weights", SPARK_FORMAT, "poem.pth", "", [&] {
    backbone.load_weights(directory + "/poem.pth");
  });
  EXPECT(backbone.forward(image).size() == 4);  // and it still works
}

// Each thread runs its own images through one backbone, in evaluation.
void check_threads() {
  constexpr int threads = 8, forwards = 3;
  at::set_num_threads(1);
  spark::Backbone backbone("resnet18");
  backbone.eval();
  std::vector<torch::Tensor> images;
  std::vector<std::vector<torch::Tensor>> serial, parallel(threads * forwards);
  const torch::NoGradGuard no_grad;
  for (int index = 0; index < threads * forwards; ++index) {
    images.push_back(torch::rand({2, 3, 64, 64}));
    serial.push_back(backbone.forward(images.back()));
  }
  std::vector<std::thread> running;
  for (int thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      const torch::NoGradGuard off;  // it is a switch of the thread
      for (int turn = 0; turn < forwards; ++turn) {
        const auto index = static_cast<std::size_t>(thread * forwards + turn);
        parallel[index] = backbone.forward(images[index]);
      }
    });
  }
  for (auto& thread : running) {
    thread.join();
  }
  for (std::size_t index = 0; index < serial.size(); ++index) {
    EXPECT(serial[index].size() == parallel[index].size());
    for (std::size_t level = 0; level < serial[index].size(); ++level) {
      EXPECT(torch::equal(serial[index][level], parallel[index][level]));
    }
  }
}

// Memory of the process, in bytes.
struct Memory {
  long allocated;  // asked for and not given back
  long resident;   // held, with what the allocator keeps for later
};

Memory memory() {
  // Tensors come from this allocator, too.
  const struct mallinfo2 heap = mallinfo2();
  std::ifstream file("/proc/self/statm");
  long whole = 0, pages = 0;
  file >> whole >> pages;
  return {static_cast<long>(heap.uordblks + heap.hblkhd), pages * sysconf(_SC_PAGESIZE)};
}

void run_round(const std::string& weights, const torch::Tensor& image) {
  spark::Backbone backbone(spark::Options("resnet18").weights(weights));
  EXPECT(backbone.forward(image).size() == 4);
}

// Prints what allocated and resident memory grew by, in bytes, from the end of
// the first rounds, in which caches fill, to the end of the last.
void measure_rounds(const std::string& weights, int rounds) {
  const auto image = torch::rand({2, 3, 32, 32});
  const int first = rounds / 4;
  Memory before{};
  for (int round = 1; round <= rounds; ++round) {
    run_round(weights, image);
    if (round == first) {
      before = memory();
    }
    if (round % 1000 == 0) {
      std::fprintf(stderr, "round %d: %ld kB\n", round, memory().resident / 1024);
    }
  }
  const Memory after = memory();
  std::printf("%ld %ld\n", after.allocated - before.allocated, after.resident - before.resident);
}

void write_features(const std::vector<std::string>& words) {
  const std::int64_t side = std::stol(words[3]);
  const auto image = torch::empty({1, 3, side, side});
  std::ifstream input(words[2], std::ios::binary);
  const auto size = static_cast<std::streamsize>(image.numel() * 4);
  EXPECT(input.read(static_cast<char*>(image.data_ptr()), size));
  spark::Backbone backbone(spark::Options(words[0]).weights(words[1]));
  backbone.eval();
  const torch::NoGradGuard no_grad;
  const auto maps = backbone.forward(image);
  for (std::size_t level = 0; level < maps.size(); ++level) {
    const auto map = maps[level].contiguous();
    std::ofstream output(words[4] + "." + std::to_string(level), std::ios::binary);
    EXPECT(output.write(static_cast<const char*>(map.data_ptr()), map.numel() * 4));
  }
}

void run(const std::vector<std::string>& words) {
  const std::string task = words.empty() ? "" : words[0];
  if (task == "module" && words.size() == 2) {
    checks::check_module(words[1]);
  } else if (task == "graph" && words.size() == 3) {
    checks::check_graph(words[1], words[2]);
  } else if (task == "errors" && words.size() == 2) {
    check_errors(words[1]);
  } else if (task == "threads" && words.size() == 1) {
    check_threads();
  } else if (task == "rounds" && words.size() == 3) {
    measure_rounds(words[1], std::stoi(words[2]));
  } else if (task == "features" && words.size() == 6) {
    write_features({words.begin() + 1, words.end()});
  } else {
    throw std::logic_error("no such task: see the head of host.cpp");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run({argv + 1, argv + argc});
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
