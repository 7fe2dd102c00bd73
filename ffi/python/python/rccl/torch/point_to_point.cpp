// Messages, and the barrier that is made of them.
#include "backend.h"
#include "error.h"
#include "launch.h"
#include "signals.h"

namespace rccl_torch {

using c10d::OpType;
using std::chrono::milliseconds;

c10::intrusive_ptr<Work> Backend::message(
    OpType type, const char* name, const at::Tensor& tensor, Buffers buffers, int64_t tag, milliseconds timeout) {
  c10::intrusive_ptr<rccl_torch::Work> work;
  std::lock_guard<std::mutex> lock(order_);
  refuse_closed(name);
  work = new_work({type, name, timeout}, std::move(buffers), {tensor});
  work->deadline = Clock::now() + timeout;
  return work;
}

Backend::Result Backend::send(Tensors& tensors, int peer, int tag) {
  const at::Tensor& given = only(tensors, "send");
  Buffers buffers("send");
  const at::Tensor tensor = buffers.input(given);
  auto work = message(OpType::SEND, "send", given, std::move(buffers), tag, allowed(c10d::kUnsetTimeout));
  messages_->send(work, tensor, peer, tag);
  return message_ended(work);
}

Backend::Result Backend::recv(Tensors& tensors, int peer, int tag) {
  const at::Tensor& given = only(tensors, "recv");
  Buffers buffers("recv");
  const at::Tensor tensor = buffers.output(given);
  auto work = message(OpType::RECV, "recv", given, std::move(buffers), tag, allowed(c10d::kUnsetTimeout));
  messages_->recv(work, tensor, peer, tag);
  return message_ended(work);
}

Backend::Result Backend::recvAnysource(Tensors& tensors, int tag) {
  const at::Tensor& given = only(tensors, "recv from any rank");
  Buffers buffers("recv from any rank");
  const at::Tensor tensor = buffers.output(given);
  auto work = message(
      OpType::RECVANYSOURCE, "recv from any rank", given, std::move(buffers), tag, allowed(c10d::kUnsetTimeout));
  messages_->recv_any(work, tensor, tag);
  return message_ended(work);
}

void Backend::gives_up_messages(rccl_torch::Work& work) {
  work.give_up = [messages = std::weak_ptr<Messages>(messages_)](const char* why) {
    if (auto alive = messages.lock()) alive->abort(why);
  };
}

Backend::Result Backend::message_ended(c10::intrusive_ptr<Work> work) {
  gives_up_messages(*work);
  if (coalesced_) coalesced_->push_back(work);
  return work;
}

// A byte that says that a rank was here.
c10::intrusive_ptr<Work> Backend::token(bool sent, at::Tensor tensor, int peer, int64_t tag, milliseconds timeout) {
  const char* name = "monitored_barrier";
  Buffers buffers(name);
  tensor = sent ? buffers.input(tensor) : buffers.output(tensor);
  auto work = message(sent ? OpType::SEND : OpType::RECV, name, tensor, std::move(buffers), tag, timeout);
  gives_up_messages(*work);
  sent ? messages_->send(work, tensor, peer, tag) : messages_->recv(work, tensor, peer, tag);
  return work;
}

// Rank 0 hears of all others, then answers them. It knows who did not come.
void Backend::monitoredBarrier(const c10d::BarrierOptions& opts, bool wait_all_ranks) {
  const auto timeout = opts.timeout == c10d::kUnsetTimeout ? allowed(opts.timeout) : opts.timeout;
  const auto deadline = Clock::now() + timeout;
  uint64_t number;
  {
    std::lock_guard<std::mutex> lock(order_);
    number = barriers_++;
  }
  // Programs' tags are not negative.
  const int64_t here = -1 - 2 * static_cast<int64_t>(number), passed = here - 1;
  const at::Tensor byte = at::zeros({1}, at::kByte);
  const auto words = [](const std::exception_ptr& exception) {
    try {
      std::rethrow_exception(exception);
    } catch (const c10::Error& error) {
      return std::string(error.what_without_backtrace());
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
  };
  if (rank_ != 0) {
    try {
      auto coming = token(true, byte, 0, here, timeout);
      auto answer = token(false, byte.clone(), 0, passed, timeout);
      coming->wait();
      answer->wait();
    } catch (const Interrupt&) {
      throw;
    } catch (...) {
      std::rethrow_exception(error(c10::str(
          "Rank ", rank_, " successfully reached monitoredBarrier, but received errors while waiting for send/recv from"
          " rank 0: rank 0 did not come, or another rank did not and rank 0 says which. ",
          words(std::current_exception()))));
    }
    return;
  }
  std::vector<c10::intrusive_ptr<rccl_torch::Work>> coming;
  for (int rank = 1; rank < size_; ++rank) coming.push_back(token(false, byte.clone(), rank, here, timeout));
  std::vector<int> missing;
  std::string why;
  for (int rank = 1; rank < size_; ++rank) {
    if (!wait_all_ranks && Clock::now() >= deadline && !coming[rank - 1]->isSuccess()) {
      std::rethrow_exception(error(c10::str(
          "Rank 0 timed out in monitoredBarrier after ", timeout.count(), " ms, when it waited for rank ", rank,
          ": Rank ", rank, " failed to pass monitoredBarrier in ", timeout.count(), " ms")));
    }
    try {
      coming[rank - 1]->wait();
    } catch (const Interrupt&) {
      throw;
    } catch (...) {
      missing.push_back(rank);
      if (why.empty()) why = words(std::current_exception());
      if (!wait_all_ranks) break;
    }
  }
  if (missing.empty()) {
    std::vector<c10::intrusive_ptr<rccl_torch::Work>> answers;
    for (int rank = 1; rank < size_; ++rank) answers.push_back(token(true, byte, rank, passed, timeout));
    for (auto& answer : answers) answer->wait();
    return;
  }
  std::string names;
  for (int rank : missing) names += (names.empty() ? "" : ", ") + std::to_string(rank);
  std::rethrow_exception(error(c10::str(
      missing.size() > 1 || wait_all_ranks ? "Ranks " : "Rank ", names, " failed to pass monitoredBarrier in ",
      timeout.count(), " ms: ", why)));
}

} // namespace rccl_torch
