#include "messages.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <new>
#include <thread>

#include "error.h"
#include "group.h"

namespace rccl_torch {

namespace {

// The bytes of an element of the library's types.
size_t bytes_of(int32_t type) {
  switch (type) {
    case rcclInt8: case rcclUint8: case rcclFloat8e4m3: case rcclFloat8e5m2: return 1;
    case rcclFloat16: case rcclBfloat16: return 2;
    case rcclInt32: case rcclUint32: case rcclFloat32: return 4;
    default: return 8;
  }
}

} // namespace

Messages::Messages(rcclComm_t world, int rank, int size) : world_(world), rank_(rank), size_(size) {}

Messages::~Messages() = default;

// Makes the communicators of both directions, as the peer does when it first needs one of them: nothing is sent for that. The first
// of two with the same ranks carries what the lower rank sends.
void Messages::meet(int peer, const char* call) {
  if (peer < 0 || peer >= size_) {
    std::rethrow_exception(error(c10::str("rccl ", call, ": rank ", peer, " of a group of ", size_, " ranks")));
  }
  if (peer == rank_) {
    std::rethrow_exception(error(c10::str("rccl ", call, ": rank ", rank_, " itself is no peer")));
  }
  std::lock_guard<std::mutex> lock(making_);
  if (closed_) std::rethrow_exception(error(c10::str("rccl ", call, ": the process group was shut down")));
  if (outgoing_.count(peer) != 0) return;
  std::vector<int> others;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_ && rank != peer) others.push_back(rank);
  }
  rcclComm_t both[2] = {nullptr, nullptr};
  for (rcclComm_t& comm : both) {
    check(
        rcclCommShrink(world_, others.data(), static_cast<int>(others.size()), &comm, nullptr, RCCL_SHRINK_DEFAULT),
        call);
  }
  const int there = peer < rank_ ? 0 : 1;
  auto out = std::make_unique<Outgoing>();
  out->peer_there = there;
  out->comm = both[rank_ < peer ? 0 : 1];
  auto in = std::make_unique<Lane>();
  in->messages = this;
  in->peer = peer;
  in->peer_there = there;
  in->comm = both[rank_ < peer ? 1 : 0];
  check(rcclStreamCreate(&in->stream), call);
  // It may be asked for before a message is sent; receives have deadlines of their own.
  check(rcclStreamSetTimeout(in->stream, INT_MAX), call);
  outgoing_.emplace(peer, std::move(out));
  std::lock_guard<std::mutex> both_locks(mutex_);
  lanes_.emplace(peer, std::move(in));
}

Messages::Lane& Messages::lane(int peer, const char* call) {
  meet(peer, call);
  std::lock_guard<std::mutex> lock(mutex_);
  return *lanes_.at(peer);
}

void Messages::send(const c10::intrusive_ptr<Work>& work, const at::Tensor& tensor, int peer, int64_t tag) {
  meet(peer, work->call());
  const Elements elements(tensor.scalar_type());
  auto header = std::make_shared<Header>(Header{tag, elements.count(tensor), elements.type, 0});
  work->keeps = header;
  Outgoing* out;
  {
    std::lock_guard<std::mutex> lock(making_);
    out = outgoing_.at(peer).get();
  }
  rcclStream_t stream = work->stream();
  {
    const void* memory = tensor.const_data_ptr();
    std::lock_guard<std::mutex> lock(out->order);
    // Together: what is refused of one of them keeps back the other.
    Group group;
    check(rcclSend(header.get(), sizeof(Header), rcclUint8, out->peer_there, out->comm, stream), work->call());
    check(rcclSend(memory, header->count, elements.type, out->peer_there, out->comm, stream), work->call());
    group.end(work->call());
  }
  sent_->add(work);
  work->made();
}

void Messages::recv(const c10::intrusive_ptr<Work>& work, const at::Tensor& tensor, int peer, int64_t tag) {
  Lane& from = lane(peer, work->call());
  const Elements elements(tensor.scalar_type());
  Receive receive{work.get(), tensor.data_ptr(), elements, elements.count(tensor), tag, 0};
  received_->add(work);
  work->share(from.stream);
  const auto deadline = work->deadline;
  std::unique_lock<std::mutex> lock(mutex_);
  receive.number = receives_++;
  if (deliver(from, receive)) return;
  if (from.broken) {
    end(receive, peer, failure(work->call(), from.result, from.words.c_str()));
    return;
  }
  from.wanted.push_back(std::move(receive));
  const bool asks = !std::exchange(from.asking, true);
  lock.unlock();
  keep_deadline(deadline);
  if (asks) ask(from);
}

void Messages::recv_any(const c10::intrusive_ptr<Work>& work, const at::Tensor& tensor, int64_t tag) {
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_) meet(peer, work->call());
  }
  const Elements elements(tensor.scalar_type());
  Receive receive{work.get(), tensor.data_ptr(), elements, elements.count(tensor), tag, 0};
  received_->add(work);
  const auto deadline = work->deadline;
  std::vector<Lane*> asked;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    receive.number = receives_++;
    for (auto& [peer, from] : lanes_) {
      if (deliver(*from, receive)) return;
    }
    if (const Lane* broken = none_can_come()) {
      end(receive, -1, failure(work->call(), broken->result, broken->words.c_str()));
      return;
    }
    wanted_of_any_.push_back(std::move(receive));
    for (auto& [peer, from] : lanes_) {
      if (!from->broken && !std::exchange(from->asking, true)) asked.push_back(from.get());
    }
  }
  keep_deadline(deadline);
  for (Lane* from : asked) ask(*from);
}

// Asks for the next header, without a lock: it may be there already.
void Messages::ask(Lane& lane) {
  auto came = [](rcclStream_t, rcclResult_t result, const char* words, void* argument) {
    auto* lane = static_cast<Lane*>(argument);
    lane->messages->header_came(*lane, result, words);
  };
  rcclStreamSetTimeout(lane.stream, INT_MAX);
  rcclResult_t result =
      rcclRecv(&lane.header, sizeof(Header), rcclUint8, lane.peer_there, lane.comm, lane.stream);
  if (result == rcclSuccess) result = rcclStreamAddCallback(lane.stream, came, &lane);
  if (result != rcclSuccess) header_came(lane, result, rcclGetLastError(nullptr));
}

void Messages::header_came(Lane& lane, rcclResult_t result, const char* words) {
  void* memory;
  size_t count;
  rcclDataType_t type;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (result != rcclSuccess) {
      fail(lane, result, words);
      return;
    }
    const auto fits = [&](const Receive& receive) { return receive.tag == lane.header.tag; };
    auto here = std::find_if(lane.wanted.begin(), lane.wanted.end(), fits);
    auto any = std::find_if(wanted_of_any_.begin(), wanted_of_any_.end(), fits);
    const bool is_here = here != lane.wanted.end(), is_any = any != wanted_of_any_.end();
    if (is_here && (!is_any || here->number < any->number)) {
      lane.into = std::make_unique<Receive>(*here);
      lane.wanted.erase(here);
    } else if (is_any) {
      lane.into = std::make_unique<Receive>(*any);
      wanted_of_any_.erase(any);
      lane.into->work->share(lane.stream);
    }
    if (lane.into) {
      // With the receiver's type and count: the library tells both ends if the sender's are others.
      memory = lane.into->memory;
      count = lane.into->count;
      type = lane.into->elements.type;
      // The elements follow at once. A sender that stops between the two keeps nobody longer than his deadline.
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(lane.into->work->deadline - Clock::now());
      const auto patience = std::clamp<int64_t>(left.count(), 1, INT_MAX);
      rcclStreamSetTimeout(lane.stream, static_cast<int>(patience));
    } else {
      count = lane.header.count;
      type = static_cast<rcclDataType_t>(lane.header.type);
      memory = new (std::nothrow) char[count * bytes_of(type)];
      if (memory == nullptr) {
        const auto words = c10::str("no memory for a message of ", count, " elements that nobody has asked for yet");
        fail(lane, rcclSystemError, words.c_str());
        return;
      }
      lane.aside = std::make_unique<Arrived>(
          Arrived{lane.header, std::unique_ptr<char[]>(static_cast<char*>(memory))});
    }
  }
  auto came = [](rcclStream_t, rcclResult_t result, const char* words, void* argument) {
    auto* lane = static_cast<Lane*>(argument);
    lane->messages->elements_came(*lane, result, words);
  };
  rcclResult_t made = rcclRecv(memory, count, type, lane.peer_there, lane.comm, lane.stream);
  if (made == rcclSuccess) made = rcclStreamAddCallback(lane.stream, came, &lane);
  if (made != rcclSuccess) elements_came(lane, made, rcclGetLastError(nullptr));
}

void Messages::elements_came(Lane& lane, rcclResult_t result, const char* words) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (result != rcclSuccess) {
      fail(lane, result, words);
      return;
    }
    if (auto into = std::move(lane.into)) {
      end(*into, lane.peer, nullptr);
    } else {
      lane.arrived.push_back(std::move(*lane.aside));
      lane.aside = nullptr;
      // Somebody may have begun to want it meanwhile.
      const int64_t tag = lane.arrived.back().header.tag;
      for (auto* wanted : {&lane.wanted, &wanted_of_any_}) {
        auto receive =
            std::find_if(wanted->begin(), wanted->end(), [&](const Receive& one) { return one.tag == tag; });
        if (receive != wanted->end() && deliver(lane, *receive)) {
          wanted->erase(receive);
          break;
        }
      }
    }
    lane.asking = wants(lane);
    if (!lane.asking) return;
  }
  ask(lane);
}

bool Messages::wants(const Lane& lane) const {
  return !closed_ && (!lane.wanted.empty() || !wanted_of_any_.empty());
}

// The lane is broken: so is all that waits for it alone.
void Messages::fail(Lane& lane, rcclResult_t result, const char* words) {
  lane.asking = false;
  lane.broken = true;
  lane.result = result;
  lane.words = words;
  if (auto into = std::move(lane.into)) {
    const auto exception = failure(into->work->call(), result, words);
    end(*into, lane.peer, exception);
  }
  for (Receive& receive : lane.wanted) {
    const auto exception = failure(receive.work->call(), result, words);
    end(receive, lane.peer, exception);
  }
  lane.wanted.clear();
  if (none_can_come() == nullptr) return;
  for (Receive& receive : wanted_of_any_) {
    const auto exception = failure(receive.work->call(), result, words);
    end(receive, -1, exception);
  }
  wanted_of_any_.clear();
}

// A broken lane, if that keeps everybody's messages from coming: something is wrong with the whole group, or no other is left. A
// peer that has left in peace keeps nobody else from sending.
const Messages::Lane* Messages::none_can_come() const {
  const Lane* found = nullptr;
  bool all = true;
  for (auto& [peer, from] : lanes_) {
    if (from->broken) found = from.get();
    all = all && from->broken;
  }
  rcclResult_t world = rcclSuccess;
  rcclCommGetAsyncError(world_, &world);
  return all || world != rcclSuccess ? found : nullptr;
}

// Gives a message that has arrived to somebody who wants it, if there is one.
bool Messages::deliver(Lane& lane, Receive& receive) {
  auto found = std::find_if(lane.arrived.begin(), lane.arrived.end(), [&](const Arrived& one) {
    return one.header.tag == receive.tag;
  });
  if (found == lane.arrived.end()) return false;
  const Header header = found->header;
  std::exception_ptr exception;
  if (header.count == receive.count && header.type == receive.elements.type) {
    std::memcpy(receive.memory, found->memory.get(), header.count * bytes_of(header.type));
  } else {
    exception = error(c10::str(
        "rccl ", receive.work->call(), ": mismatch: rank ", lane.peer, " sent ", header.count, " elements of ",
        bytes_of(header.type), " bytes with tag ", header.tag, " (type ", header.type, "), and rank ", rank_,
        " receives ", receive.count, " of ", bytes_of(receive.elements.type), " bytes (type ",
        static_cast<int>(receive.elements.type), ")"));
  }
  lane.arrived.erase(found);
  end(receive, lane.peer, exception);
  return true;
}

// The work may be gone after that.
void Messages::end(const Receive& receive, int source, const std::exception_ptr& exception) {
  receive.work->source = source;
  receive.work->ended(exception);
}

// Has the deadlines looked at in time. Deadlines of works that end in time cost nothing more: the next one is found then.
void Messages::keep_deadline(Clock::time_point deadline) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (deadline >= look_) return;
    look_ = deadline;
  }
  Runner::process().run_at(deadline, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->expire();
  });
}

void Messages::expire() {
  auto next = Clock::time_point::max();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto now = Clock::now();
    if (look_ > now) return; // by another look
    const auto overdue = [&](std::deque<Receive>& wanted, int peer) {
      for (auto receive = wanted.begin(); receive != wanted.end();) {
        if (receive->work->deadline > now) {
          next = std::min(next, receive->work->deadline);
          ++receive;
          continue;
        }
        const std::string from = peer < 0 ? "any rank" : c10::str("rank ", peer);
        const auto exception = error(c10::str(
            "rccl ", receive->work->call(), " on rank ", rank_, " ended by its timeout (Timed out after ",
            std::chrono::duration_cast<std::chrono::milliseconds>(receive->work->allowed()).count(),
            " ms): no message with tag ", receive->tag, " came from ", from));
        end(*receive, peer, exception);
        receive = wanted.erase(receive);
      }
    };
    for (auto& [peer, from] : lanes_) overdue(from->wanted, peer);
    overdue(wanted_of_any_, -1);
    look_ = Clock::time_point::max();
  }
  if (next != Clock::time_point::max()) keep_deadline(next);
}

// Waits until nothing of the library's will call back. That is soon, as the lane was given up.
void Messages::await_silence(Lane& lane) {
  const auto enough = Clock::now() + std::chrono::seconds(10);
  while (Clock::now() < enough) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!lane.asking) return;
    }
    rcclStreamSynchronizeTimeout(lane.stream, 10);
    std::this_thread::yield();
  }
  // Rather memory that stays than memory that is gone.
  new std::shared_ptr<Messages>(shared_from_this());
}

void Messages::fail_all(const std::exception_ptr& exception) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [peer, from] : lanes_) {
    for (Receive& receive : from->wanted) end(receive, peer, exception);
    from->wanted.clear();
  }
  for (Receive& receive : wanted_of_any_) end(receive, -1, exception);
  wanted_of_any_.clear();
}

void Messages::abort(const char* why) {
  std::lock_guard<std::mutex> lock(making_);
  for (auto& [peer, out] : outgoing_) rcclCommRevokeBecause(out->comm, why);
  for (auto& [peer, in] : lanes_) rcclCommRevokeBecause(in->comm, why);
}

std::exception_ptr Messages::close(bool wait) {
  {
    std::lock_guard<std::mutex> lock(making_);
    if (closed_) return nullptr;
    closed_ = true;
  }
  fail_all(error("rccl: the process group was shut down while a message was waited for"));
  const std::exception_ptr raised = wait ? sent_->work_off() : nullptr;
  const bool all_sent = sent_->is_empty();
  for (auto& [peer, out] : outgoing_) {
    all_sent ? rcclCommDestroy(out->comm) : rcclCommAbort(out->comm);
  }
  for (auto& [peer, in] : lanes_) {
    bool asking;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      asking = in->asking;
    }
    // A header that was asked for and that nobody wants any more would be waited for.
    asking ? rcclCommAbort(in->comm) : rcclCommDestroy(in->comm);
    await_silence(*in);
    rcclStreamDestroy(in->stream);
  }
  sent_->work_off_undisturbed();
  return raised;
}

} // namespace rccl_torch
