// A call that is under way, as torch sees it.
#pragma once

#include <roceccl.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <sys/types.h>

#include <deque>
#include <functional>
#include <memory>

#include "buffers.h"
#include "runner.h"

namespace rccl_torch {

class UnderWay;

// Three threads may meet here: the one that waits, which moves the call meanwhile; the one that sees its end, maybe inside the
// library, where nothing may be done but to note it; and the process's runner, which completes futures when nobody waits. Who comes
// first after the end *concludes* the work: copies results back, lets go of the tensors, completes the future.
class Work final : public c10d::Work {
 public:
  // `on`: the stream that its calls are made on and that ends with them. Without one, whoever knows the end calls `ended`.
  Work(int rank, c10d::OpType type, const char* call, Buffers buffers, std::vector<at::Tensor> results, uint64_t sequence,
       std::chrono::milliseconds timeout);
  ~Work() override;

  // Has profilers see it from now to its end, as "rccl:all_reduce", with the shapes of these tensors or else of its results.
  void profile(at::TensorList inputs);
  // The stream for its calls, with its deadline. Whoever waits moves what is on it.
  rcclStream_t stream();
  // Whoever made the call waits at once: it is left to him. Before the stream is asked for.
  void leave_to_waiter() {
    left_to_waiter_ = true;
  }
  // Of a message: the stream of the messages of one peer, which stays that peer's.
  void share(rcclStream_t stream);
  // All calls are made; the work ends with what is on its stream.
  void made();

  // Called once, on any thread, inside the library or not.
  void ended(std::exception_ptr exception) noexcept;

  bool isCompleted() override;
  bool isSuccess() const override;
  std::exception_ptr exception() const override;
  int sourceRank() const override;
  std::vector<at::Tensor> result() override;
  void synchronize() override;
  bool wait(std::chrono::milliseconds timeout = kNoTimeout) override;
  // As wait, for who cannot be interrupted.
  void wait_undisturbed();
  void abort() override;
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  uint64_t getSequencenumber() const override;

  // Whether its calls are over, though maybe not what remains to be done then.
  bool has_ended() const;
  const char* call() const {
    return call_;
  }
  // Its timeout.
  std::chrono::milliseconds allowed() const {
    return timeout_;
  }
  // When it must have ended, of a message that is waited for.
  Clock::time_point deadline = Clock::time_point::max();
  int source = -1;
  // What abort does.
  std::function<void(const char* why)> give_up;
  // Who keeps it until it was concluded.
  std::weak_ptr<UnderWay> keeper;
  // What else must live as long as the call.
  std::shared_ptr<void> keeps;
  Buffers buffers;

 private:
  const char* const call_;
  std::vector<at::Tensor> results_;
  const uint64_t sequence_;
  const std::chrono::milliseconds timeout_;
  const pid_t process_;
  rcclStream_t stream_ = nullptr;
  bool owns_stream_ = false;
  bool left_to_waiter_ = false;
  bool ended_ = false;
  bool concluding_ = false;
  c10::intrusive_ptr<c10::ivalue::Future> future_;

  // `attends`: to signals.
  bool wait(std::chrono::milliseconds timeout, bool attends);
  void conclude();
  void conclude_once();
  void conclude_later();
  void go_on_alone();
};

// Several works as one.
class Works final : public c10d::Work {
 public:
  Works(int rank, std::vector<c10::intrusive_ptr<c10d::Work>> works);

  bool isCompleted() override;
  bool isSuccess() const override;
  std::exception_ptr exception() const override;
  std::vector<at::Tensor> result() override;
  void synchronize() override;
  bool wait(std::chrono::milliseconds timeout = kNoTimeout) override;
  void abort() override;
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;

 private:
  std::vector<c10::intrusive_ptr<c10d::Work>> works_;
};

// Keeps works, with their tensors, whoever else lets go of them, until they were concluded, or have ended and another one comes: they
// must not be dropped where their end is seen, since dropping a tensor may want Python's lock.
class UnderWay : public std::enable_shared_from_this<UnderWay> {
 public:
  // Keeps another one, and lets go of others that have ended.
  void add(c10::intrusive_ptr<rccl_torch::Work> work);
  // Lets go of one, if it is kept. The caller has it too.
  void drop(const rccl_torch::Work& work);
  // Waits until all have ended, well or not. What a handler of a signal raises meanwhile is returned at once, and those that have
  // not ended are kept.
  std::exception_ptr work_off();
  // The same, but signals have to wait.
  void work_off_undisturbed();
  bool is_empty();

 private:
  static constexpr size_t FEW = 64;

  c10::intrusive_ptr<rccl_torch::Work> first();

  std::mutex mutex_;
  std::deque<c10::intrusive_ptr<rccl_torch::Work>> works_;
  // With so many, those that have ended are looked for everywhere.
  size_t look_at_ = FEW;
};

} // namespace rccl_torch
