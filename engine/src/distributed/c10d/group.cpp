// The process group: meeting, and operations on tensors over all processes.
#include "spark-engine/src/distributed/c10d/group.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/unbind.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <chrono>
#include <stdexcept>
#include <thread>

#include "spark-engine/src/bridge.rs.h"

namespace spark {

namespace {

std::string text(const rust::String& string) { return std::string(string.data(), string.size()); }

void wait(const c10::intrusive_ptr<c10d::Work>& work) {
  if (work && !work->wait()) {
    throw std::runtime_error("the operation was not completed");
  }
}

// Gloo's backend, whose timeout can be set: before 2.9 libtorch's own has no function for it.
class Gloo : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;

  void set_timeout(std::chrono::milliseconds timeout) {
    options_->timeout = timeout;
    for (const auto& context : contexts_) context->setTimeout(timeout);
  }
};

// Collectives want dense memory. `use` gets the tensor, or a copy that goes back afterwards.
template <typename Use>
void dense(const at::Tensor& tensor, Use use) {
  if (tensor.is_non_overlapping_and_dense()) {
    std::vector<at::Tensor> tensors{tensor};
    use(tensors);
    return;
  }
  std::vector<at::Tensor> tensors{tensor.contiguous()};
  use(tensors);
  tensor.copy_(tensors[0]);
}

std::vector<std::uint8_t> bytes(const std::string& string) {
  return std::vector<std::uint8_t>(string.begin(), string.end());
}

std::string value(c10d::Store& store, const std::string& key) {
  if (!store.check({key})) {
    return "";
  }
  const auto found = store.get(key);
  return std::string(found.begin(), found.end());
}

// The job's keys in the launcher's store, or in one that rank 0 serves.
c10::intrusive_ptr<c10d::Store> open_store(const Rendezvous& rendezvous) {
  c10d::TCPStoreOptions options;
  options.port = rendezvous.port;
  options.isServer = rendezvous.serves;
  options.multiTenant = rendezvous.multi_tenant;
  options.numWorkers = static_cast<std::size_t>(rendezvous.size);
  // Gloo's own meeting waits for everybody; a server that is only torchrun's never hears of all.
  options.waitWorkers = false;
  options.timeout = std::chrono::milliseconds(rendezvous.timeout_ms);
  auto tcp = c10::make_intrusive<c10d::TCPStore>(text(rendezvous.host), options);
  return c10::make_intrusive<c10d::PrefixStore>(text(rendezvous.prefix), tcp);
}

// A name for this meeting that all processes agree on and no earlier meeting had. Launchers count
// restarts machine by machine, so that their count is no such name.
std::string agree_on_round(c10d::Store& store, const Rendezvous& rendezvous) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(rendezvous.timeout_ms);
  const auto nonce = text(rendezvous.nonce);
  const auto pause = [&](const std::string& awaited) {
    if (std::chrono::steady_clock::now() > deadline) {
      throw std::runtime_error("waited in vain for " + awaited);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  if (rendezvous.rank != 0) {
    store.set("hello/" + std::to_string(rendezvous.rank), bytes(nonce));
    // Rank 0 of an earlier meeting does not know this nonce.
    auto reply = value(store, "reply");
    while (reply.find("/" + nonce + "/") == std::string::npos) {
      pause("rank 0");
      reply = value(store, "reply");
    }
    const auto round = reply.substr(0, reply.find('/'));
    store.set("ack/" + std::to_string(rendezvous.rank), bytes(round));
    return round;
  }
  std::vector<int> missing;
  while (true) {
    // Names may be those of processes that have died; only the living acknowledge.
    auto reply = nonce + "/";
    for (int rank = 1; rank < rendezvous.size; ++rank) {
      reply += value(store, "hello/" + std::to_string(rank)) + "/";
    }
    store.set("reply", bytes(reply));
    missing.clear();
    for (int rank = 1; rank < rendezvous.size; ++rank) {
      if (value(store, "ack/" + std::to_string(rank)) != nonce) {
        missing.push_back(rank);
      }
    }
    if (missing.empty()) {
      return nonce;
    }
    std::string awaited = "rank";
    for (std::size_t index = 0; index < missing.size() && index < 8; ++index) {
      awaited += (index == 0 ? " " : ", ") + std::to_string(missing[index]);
    }
    pause(awaited + (missing.size() > 8 ? ", …" : ""));
  }
}

}  // namespace

Group::Group(c10::intrusive_ptr<c10d::Store> store,
             c10::intrusive_ptr<c10d::ProcessGroup> processes)
    : store_(std::move(store)), processes_(std::move(processes)) {}

Group::~Group() = default;

rust::String launch_name(const Rendezvous& rendezvous) {
  const auto name = open_store(rendezvous)->compareSet("launch", {}, bytes(text(rendezvous.nonce)));
  return std::string(name.begin(), name.end());
}

std::unique_ptr<Group> connect(const Rendezvous& rendezvous) {
  const std::chrono::milliseconds timeout(rendezvous.timeout_ms);
  auto job = open_store(rendezvous);
  const auto round = agree_on_round(*job, rendezvous);
  c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::PrefixStore>(round, job);

  auto processes =
      c10::make_intrusive<c10d::ProcessGroup>(store, rendezvous.rank, rendezvous.size);
  auto gloo_options = c10d::ProcessGroupGloo::Options::create(timeout);
  gloo_options->devices.push_back(
      rendezvous.interface.empty()
          ? c10d::ProcessGroupGloo::createDeviceForHostname(text(rendezvous.address))
          : c10d::ProcessGroupGloo::createDeviceForInterface(text(rendezvous.interface)));
  auto gloo = c10::make_intrusive<Gloo>(
      c10::make_intrusive<c10d::PrefixStore>("cpu", store), rendezvous.rank, rendezvous.size,
      gloo_options);
  processes->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO,
                        c10::intrusive_ptr<c10d::Backend>(gloo));
  processes->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  return std::make_unique<Group>(std::move(store), std::move(processes));
}

void Group::set_timeout(std::int64_t timeout_ms) const {
  // What `connect` has made.
  auto& gloo = static_cast<Gloo&>(*processes_->getBackend(c10::DeviceType::CPU));
  gloo.set_timeout(std::chrono::milliseconds(timeout_ms));
}

void Group::add_nccl([[maybe_unused]] std::int64_t timeout_ms) const {
#ifdef USE_C10D_NCCL
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(timeout_ms);
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      c10::make_intrusive<c10d::PrefixStore>("cuda", store_), processes_->getRank(),
      processes_->getSize(), options);
  processes_->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL,
                         c10::intrusive_ptr<c10d::Backend>(nccl));
  processes_->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
#else
  throw std::runtime_error("this program was built without NCCL");
#endif
}

void Group::sum(const at::Tensor& tensor) const {
  dense(tensor, [&](std::vector<at::Tensor>& tensors) {
    wait(processes_->allreduce(tensors, c10d::AllreduceOptions()));
  });
}

void Group::max(const at::Tensor& tensor) const {
  dense(tensor, [&](std::vector<at::Tensor>& tensors) {
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp::MAX;
    wait(processes_->allreduce(tensors, options));
  });
}

void Group::broadcast(const at::Tensor& tensor) const {
  dense(tensor, [&](std::vector<at::Tensor>& tensors) {
    wait(processes_->broadcast(tensors, c10d::BroadcastOptions()));
  });
}

std::unique_ptr<at::Tensor> Group::gather(const at::Tensor& tensor) const {
  std::vector<at::Tensor> own{tensor.contiguous()};
  std::vector<std::int64_t> size{processes_->getSize()};
  size.insert(size.end(), own[0].sizes().begin(), own[0].sizes().end());
  auto all = at::empty(size, own[0].options());
  std::vector<std::vector<at::Tensor>> slots{at::unbind(all)};
  wait(processes_->allgather(slots, own, c10d::AllgatherOptions()));
  return std::make_unique<at::Tensor>(all);
}

std::unique_ptr<TensorList> tensor_list() { return std::make_unique<TensorList>(); }

}  // namespace spark
