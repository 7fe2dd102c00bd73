// The c10d backend: torch's operations on CPU tensors as calls of the library.
#pragma once

#include <roceccl.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/version.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "buffers.h"
#include "messages.h"
#include "runner.h"
#include "work.h"

namespace rccl_torch {

// Every call is made at once, in the order of the program, on a communicator of its process group, and on a stream of its own,
// which has its deadline and tells its end. Messages have communicators of their own, and so have sums of sparse tensors, which take
// several calls.
class Backend final : public c10d::Backend {
 public:
  // Joins: all ranks meet by the store. `label` names the group in errors.
  Backend(c10::intrusive_ptr<c10d::Store> store, int rank, int size, std::chrono::milliseconds timeout, std::string label);
  ~Backend() override;

  const std::string getBackendName() const override {
    return "rccl";
  }

  using Tensors = std::vector<at::Tensor>;
  using Result = c10::intrusive_ptr<c10d::Work>;

  Result broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) override;
  Result allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  Result allreduce_sparse(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  Result allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) override;
  Result reduce(Tensors& tensors, const c10d::ReduceOptions& opts) override;
  Result allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  Result _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& opts) override;
  Result allgather_coalesced(
      std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  Result allgather_into_tensor_coalesced(
      Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  Result gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& opts) override;
  Result scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& opts) override;
  Result reduce_scatter(
      Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ReduceScatterOptions& opts) override;
  Result _reduce_scatter_base(
      at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& opts) override;
  Result reduce_scatter_tensor_coalesced(
      Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) override;
  Result alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) override;
  Result alltoall_base(
      at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
      const c10d::AllToAllOptions& opts) override;
  Result barrier(const c10d::BarrierOptions& opts) override;
  void monitoredBarrier(const c10d::BarrierOptions& opts, bool wait_all_ranks) override;

  Result send(Tensors& tensors, int peer, int tag) override;
  Result recv(Tensors& tensors, int peer, int tag) override;
  Result recvAnysource(Tensors& tensors, int tag) override;

  bool supportsCoalescing() const override {
    return true;
  }
  void startCoalescing() override;
  Result endCoalescing() override;

  uint64_t getSequenceNumberForGroup() override;
  void setSequenceNumberForGroup() override {}

  void abort() override;
  // With the first cause that all ranks are told.
  void abort_because(const char* why);
  // All that there are in this process.
  static void abort_all(const char* why);
  void shutdown() override;

  // Memory that the other ranks of this host map, and RDMA devices know.
  bool supportsTensorAlloc(c10::DeviceIndex) override {
    return true;
  }
  at::Tensor allocateTensor(long size, at::TensorOptions options) override;

  // These are virtual since torch 2.9 or so.
  void setTimeout(std::chrono::milliseconds timeout);
  c10::intrusive_ptr<Options> getBackendOptions();
  c10::intrusive_ptr<c10d::Backend> split(
      const c10::intrusive_ptr<c10d::Store>& store, const std::vector<int>& ranks,
      const c10::intrusive_ptr<Options>& opts);
  // Before, only NCCL's splitting was asked for.
  bool supportsSplitting() const override {
    return TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 9;
  }

 private:
  rcclComm_t comm_ = nullptr;
  std::string label_;
  std::atomic<int64_t> timeout_;
  const pid_t process_;
  std::shared_ptr<Messages> messages_;
  const std::shared_ptr<UnderWay> under_way_ = std::make_shared<UnderWay>();
  // Keeps the order of calls and their numbers together.
  std::mutex order_;
  uint64_t sequence_ = 0;
  uint64_t barriers_ = 0;
  bool open_ = true;
  std::optional<std::vector<Result>> coalesced_;
  // Sums of sparse tensors.
  std::mutex sparse_order_;
  rcclComm_t sparse_comm_ = nullptr;
  std::unique_ptr<Runner> sparse_runner_;

  // What a call is.
  struct Call {
    c10d::OpType type;
    const char* name;
    std::chrono::milliseconds timeout;
    // Whether the caller does something else meanwhile.
    bool async = true;
    // What profilers show as its tensors, if not its results.
    at::TensorList inputs = {};
  };

  // Makes the calls that `make` makes on the stream that it is given. They end as one work.
  template <class Make>
  Result launch(const Call& call, Buffers buffers, Tensors results, Make&& make);
  c10::intrusive_ptr<rccl_torch::Work> new_work(const Call& call, Buffers buffers, Tensors results);
  Result started(c10::intrusive_ptr<rccl_torch::Work> work) {
    return started(std::move(work), comm_);
  }
  // Of a call on another communicator.
  Result started(c10::intrusive_ptr<rccl_torch::Work> work, rcclComm_t comm);
  Result gather_each(const Call& call, Buffers buffers, const Tensors& from, const Tensors& to, Tensors results);

  void refuse_closed(const char* call) const;
  std::chrono::milliseconds allowed(std::chrono::milliseconds asked) const;
  const at::Tensor& only(const Tensors& tensors, const char* call) const;
  void one_each(const Tensors& tensors, const char* call) const;
  int root(int64_t rank, const char* call) const;
  Result sparse(const at::Tensor& tensor, const c10d::AllreduceOptions& opts);
  void sum_sparse(at::Tensor& tensor, std::chrono::milliseconds timeout);
  void gives_up_messages(rccl_torch::Work& work);
  Result message_ended(c10::intrusive_ptr<rccl_torch::Work> work);
  c10::intrusive_ptr<rccl_torch::Work> message(
      c10d::OpType type, const char* name, const at::Tensor& tensor, Buffers buffers, int64_t tag,
      std::chrono::milliseconds timeout);
  c10::intrusive_ptr<rccl_torch::Work> token(bool sent, at::Tensor tensor, int peer, int64_t tag,
                                             std::chrono::milliseconds timeout);
  // `wait`: until what is under way has ended. Returns what a handler of a signal raised meanwhile: then it waited no longer.
  std::exception_ptr close(bool wait);
};

} // namespace rccl_torch
