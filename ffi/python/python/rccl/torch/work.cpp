#include "work.h"

#include <ATen/ThreadLocalState.h>
#include <ATen/record_function.h>
#include <torch/csrc/distributed/c10d/Types.hpp>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>

#include "error.h"
#include "signals.h"

namespace rccl_torch {

namespace {

using std::chrono::milliseconds;

// How long one that was given up may take to end.
constexpr auto GIVEN_UP = std::chrono::seconds(5);
// How long a waiting thread looks for the next call on a stream that has none at the moment.
constexpr auto BETWEEN_CALLS = std::chrono::microseconds(100);

int to_int(milliseconds time) {
  return static_cast<int>(std::clamp<int64_t>(time.count(), 0, INT_MAX));
}

c10::intrusive_ptr<c10::ivalue::Future> new_future() {
  return c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
}

void complete(c10::ivalue::Future& future, const std::exception_ptr& exception, const std::vector<at::Tensor>& results) {
  if (exception) {
    future.setError(exception);
  } else {
    future.markCompleted(at::IValue(results));
  }
}

} // namespace

Work::Work(int rank, c10d::OpType type, const char* call, Buffers buffers, std::vector<at::Tensor> results,
           uint64_t sequence, milliseconds timeout)
    : c10d::Work(rank, type),
      buffers(std::move(buffers)),
      call_(call),
      results_(std::move(results)),
      sequence_(sequence),
      timeout_(timeout),
      process_(getpid()) {}

Work::~Work() {
  if (owns_stream_) rcclStreamDestroy(stream_);
}

void Work::profile(at::TensorList inputs) {
  if (!at::hasCallbacks()) return;
  struct Recorded {
    std::string title;
    at::RecordFunction function{at::RecordScope::USER_SCOPE};
  };
  auto recorded = std::make_shared<Recorded>();
  if (!recorded->function.isActive()) return;
  // The name that gloo's event has, from which programs know it.
  recorded->title = c10::str("rccl:", opType_ == c10d::OpType::RECVANYSOURCE ? "recvAnySource" : call_);
  std::vector<c10::IValue> shown;
  for (const at::Tensor& tensor : inputs.empty() ? at::TensorList(results_) : inputs) shown.emplace_back(tensor);
  recorded->function._setAsync();
  recorded->function.before(
      recorded->title.c_str(), c10::ArrayRef<const c10::IValue>(shown.data(), shown.size()));
  recordFunctionEndCallback_ = at::wrapPropagateTLSState([recorded] { recorded->function.end(); });
}

rcclStream_t Work::stream() {
  if (stream_ == nullptr) {
    check(rcclStreamCreate(&stream_), call_);
    owns_stream_ = true;
    check(rcclStreamSetTimeout(stream_, std::max(1, to_int(timeout_))), call_);
    if (left_to_waiter_) check(rcclStreamSetBackground(stream_, 0), call_);
  }
  return stream_;
}

void Work::share(rcclStream_t stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  stream_ = stream;
}

void Work::made() {
  auto tell = [](rcclStream_t, rcclResult_t result, const char* words, void* argument) {
    auto* work = static_cast<Work*>(argument);
    work->ended(result == rcclSuccess ? nullptr : failure(work->call_, result, words));
  };
  check(rcclStreamAddCallback(stream(), tell, this), call_);
}

void Work::ended(std::exception_ptr exception) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ended_) return;
  ended_ = true;
  exception_ = std::move(exception);
  const bool nothing_is_left = !future_ && !recordFunctionEndCallback_ && (exception_ || !buffers.copies_back());
  if (nothing_is_left) {
    completed_ = true;
  } else if (future_ || recordFunctionEndCallback_) {
    conclude_later(); // whether or not anybody waits
  }
  // Under the lock: who sees the end may destroy this.
  cv_.notify_all();
}

// It was not waited for after all.
void Work::go_on_alone() {
  if (std::exchange(left_to_waiter_, false)) rcclStreamSetBackground(stream_, 1);
}

void Work::conclude_later() {
  Runner::process().run([work = c10::intrusive_ptr<Work>::reclaim_copy(this)] { work->conclude(); });
}

void Work::conclude() {
  conclude_once();
  if (auto kept_by = keeper.lock()) kept_by->drop(*this);
}

void Work::conclude_once() {
  std::unique_lock<std::mutex> lock(mutex_);
  cv_.wait(lock, [&] { return !concluding_; });
  Buffers done = std::exchange(buffers, Buffers(call_));
  std::shared_ptr<void> kept = std::exchange(keeps, nullptr);
  if (completed_) {
    // Whatever it kept goes without the lock.
    lock.unlock();
    return;
  }
  concluding_ = true;
  std::exception_ptr exception = exception_;
  lock.unlock();
  try {
    if (!exception) done.copy_back();
  } catch (...) {
    exception = std::current_exception();
  }
  lock.lock();
  exception_ = exception;
  completed_ = true;
  concluding_ = false;
  auto future = std::exchange(future_, nullptr);
  auto record = std::exchange(recordFunctionEndCallback_, nullptr);
  cv_.notify_all();
  lock.unlock();
  if (record) record();
  if (future) complete(*future, exception, results_);
}

bool Work::isCompleted() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!ended_) {
      go_on_alone();
      return false;
    }
  }
  conclude();
  return true;
}

bool Work::has_ended() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return ended_;
}

bool Work::isSuccess() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return completed_ && !exception_;
}

std::exception_ptr Work::exception() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return exception_;
}

int Work::sourceRank() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return source;
}

std::vector<at::Tensor> Work::result() {
  return results_;
}

void Work::synchronize() {
  wait();
}

bool Work::wait(milliseconds timeout) {
  return wait(timeout, true);
}

void Work::wait_undisturbed() {
  wait(kNoTimeout, false);
}

bool Work::wait(milliseconds timeout, bool attends) {
  if (getpid() != process_) {
    std::rethrow_exception(error(c10::str(
        "rccl ", call_, ": the call was made by process ", process_, ", and this is its child ", getpid(),
        ": initialize a process group after fork")));
  }
  auto until = timeout == kNoTimeout ? Clock::time_point::max() : Clock::now() + timeout;
  std::exception_ptr raised;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ended_) {
    const auto now = Clock::now();
    if (now >= until && raised) break;
    if (now >= until) {
      go_on_alone();
      lock.unlock();
      std::rethrow_exception(error(c10::str(
          "rccl ", call_, ": it has not ended within the timeout of ", timeout.count(),
          " ms that its waiting was given; it goes on")));
    }
    // From its own deadline on whoever keeps the deadlines ends it, and what is on the stream may be somebody else's.
    const bool overdue = now >= deadline;
    const auto next = std::min(now + SLICE, overdue ? until : std::min(until, deadline));
    rcclStream_t stream = overdue ? nullptr : stream_;
    if (stream != nullptr) {
      lock.unlock();
      const auto left = std::chrono::duration_cast<milliseconds>(next - now) + milliseconds(1);
      rcclStreamSynchronizeTimeout(stream, to_int(left));
      lock.lock();
      cv_.wait_for(lock, BETWEEN_CALLS, [&] { return ended_; });
    } else {
      cv_.wait_until(lock, next, [&] { return ended_ || (stream_ != nullptr && !overdue); });
    }
    if (ended_) break;
    if (!attends) continue;
    lock.unlock();
    try {
      attend_to_signals(give_up);
    } catch (const Interrupt&) {
      if (!owns_stream_ || !give_up) throw;
      // It was given up, and ends soon. Until then the tensors are its own.
      raised = std::current_exception();
      attends = false;
      until = Clock::now() + GIVEN_UP;
    }
    lock.lock();
  }
  const bool over = ended_;
  lock.unlock();
  if (over) conclude();
  if (raised) std::rethrow_exception(raised);
  if (auto exception = this->exception()) std::rethrow_exception(exception);
  return true;
}

void Work::abort() {
  if (give_up) give_up("abort was called");
}

c10::intrusive_ptr<c10::ivalue::Future> Work::getFuture() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (future_) return future_;
  auto future = new_future();
  if (completed_) {
    lock.unlock();
    complete(*future, exception_, results_);
    return future;
  }
  future_ = future;
  go_on_alone();
  if (ended_) conclude_later();
  return future;
}

uint64_t Work::getSequencenumber() const {
  return sequence_;
}

Works::Works(int rank, std::vector<c10::intrusive_ptr<c10d::Work>> works)
    : c10d::Work(rank, c10d::OpType::COALESCED), works_(std::move(works)) {}

bool Works::isCompleted() {
  return std::all_of(works_.begin(), works_.end(), [](auto& work) { return work->isCompleted(); });
}

bool Works::isSuccess() const {
  return std::all_of(works_.begin(), works_.end(), [](auto& work) { return work->isSuccess(); });
}

std::exception_ptr Works::exception() const {
  for (auto& work : works_) {
    if (auto exception = work->exception()) return exception;
  }
  return nullptr;
}

std::vector<at::Tensor> Works::result() {
  std::vector<at::Tensor> all;
  for (auto& work : works_) {
    for (auto& tensor : work->result()) all.push_back(tensor);
  }
  return all;
}

void Works::synchronize() {
  wait();
}

bool Works::wait(milliseconds timeout) {
  for (auto& work : works_) work->wait(timeout);
  return true;
}

void Works::abort() {
  for (auto& work : works_) work->abort();
}

c10::intrusive_ptr<c10::ivalue::Future> Works::getFuture() {
  auto all = new_future();
  auto works = std::make_shared<std::vector<c10::intrusive_ptr<c10d::Work>>>(works_);
  auto left = std::make_shared<std::atomic<size_t>>(works->size());
  auto finish = [all, works, left](c10::ivalue::Future&) {
    if (left->fetch_sub(1) > 1) return;
    std::exception_ptr exception;
    std::vector<at::Tensor> results;
    for (auto& work : *works) {
      if (!exception) exception = work->exception();
      for (auto& tensor : work->result()) results.push_back(tensor);
    }
    complete(*all, exception, results);
  };
  if (works->empty()) complete(*all, nullptr, {});
  for (auto& work : *works) work->getFuture()->addCallback(finish);
  return all;
}

void UnderWay::add(c10::intrusive_ptr<Work> work) {
  std::vector<c10::intrusive_ptr<Work>> gone;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    while (!works_.empty() && works_.front()->has_ended()) {
      gone.push_back(std::move(works_.front()));
      works_.pop_front();
    }
    // One that waits long, as a receive may, must not keep all behind it.
    if (works_.size() >= look_at_) {
      const auto ended =
          std::stable_partition(works_.begin(), works_.end(), [](auto& kept) { return !kept->has_ended(); });
      gone.insert(gone.end(), std::make_move_iterator(ended), std::make_move_iterator(works_.end()));
      works_.erase(ended, works_.end());
      look_at_ = std::max(FEW, 2 * works_.size());
    }
    work->keeper = weak_from_this();
    works_.push_back(std::move(work));
  }
  // Without the lock: this may run what the program wants to have run then.
  for (auto& work : gone) work->isCompleted();
}

void UnderWay::drop(const Work& work) {
  c10::intrusive_ptr<Work> gone;
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = std::find_if(works_.begin(), works_.end(), [&](auto& kept) { return kept.get() == &work; });
  if (found == works_.end()) return;
  gone = std::move(*found);
  works_.erase(found);
}

c10::intrusive_ptr<Work> UnderWay::first() {
  std::lock_guard<std::mutex> lock(mutex_);
  return works_.empty() ? nullptr : works_.front();
}

std::exception_ptr UnderWay::work_off() {
  while (auto work = first()) {
    try {
      work->wait();
    } catch (const Interrupt&) {
      return std::current_exception();
    } catch (...) {
      // It was told to whoever has the work.
    }
    drop(*work);
  }
  return nullptr;
}

void UnderWay::work_off_undisturbed() {
  while (auto work = first()) {
    try {
      work->wait_undisturbed();
    } catch (...) {
      // As above.
    }
    drop(*work);
  }
}

bool UnderWay::is_empty() {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::all_of(works_.begin(), works_.end(), [](auto& work) { return work->has_ended(); });
}

} // namespace rccl_torch
