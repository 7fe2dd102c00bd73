#include "backend.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>

#include "error.h"
#include "launch.h"
#include "signals.h"

namespace rccl_torch {

namespace {

using std::chrono::milliseconds;

constexpr const char* UNIQUE_ID = "rccl/unique_id";

int clamped(milliseconds time) {
  return static_cast<int>(std::clamp<int64_t>(time.count(), 1, INT_MAX));
}

// Rank 0 makes the id, and the others learn it by the store.
rcclUniqueId meet(c10d::Store& store, int rank, milliseconds timeout) {
  rcclUniqueId id;
  if (rank == 0) {
    check(rcclGetUniqueId(&id), "init");
    store.set(UNIQUE_ID, std::vector<uint8_t>(id.internal, id.internal + sizeof id.internal));
    return id;
  }
  const auto deadline = Clock::now() + timeout;
  for (auto pause = milliseconds(1); !store.check({UNIQUE_ID}); pause = std::min(2 * pause, SLICE)) {
    if (Clock::now() >= deadline) {
      std::rethrow_exception(error(c10::str(
          "rccl init: rank 0 of the group has put no id into the store within the timeout of ", timeout.count(),
          " ms: see whether it runs, and makes the same group")));
    }
    std::this_thread::sleep_for(pause);
    attend_to_signals(nullptr);
  }
  const std::vector<uint8_t> bytes = store.get(UNIQUE_ID);
  if (bytes.size() != sizeof id.internal) {
    std::rethrow_exception(error(c10::str("rccl init: the store has ", bytes.size(), " bytes where rank 0's id should be")));
  }
  std::memcpy(id.internal, bytes.data(), bytes.size());
  return id;
}

// Joins, and attends to signals meanwhile.
rcclComm_t join(const rcclUniqueId& id, int rank, int size, rcclConfig_t config) {
  rcclComm_t comm = nullptr;
  config.blocking = 0;
  check(rcclCommInitRankConfig(&comm, size, id, rank, &config), "init");
  try {
    auto attended = Clock::now();
    for (rcclResult_t state = rcclInProgress; state != rcclSuccess;) {
      check(rcclCommGetAsyncError(comm, &state), "init");
      int count;
      // What any call on it says of a failure.
      if (state != rcclInProgress) check(rcclCommCount(comm, &count), "init");
      std::this_thread::sleep_for(std::chrono::microseconds(state == rcclInProgress ? 200 : 0));
      if (Clock::now() < attended + SLICE) continue;
      attend_to_signals(nullptr);
      attended = Clock::now();
    }
  } catch (...) {
    rcclCommAbort(comm);
    throw;
  }
  return comm;
}

// All backends of this process.
struct Living {
  std::mutex mutex;
  std::set<Backend*> all;
};

// Never destroyed: the last backend may go after everything static has.
Living& living() {
  static auto* living = new Living;
  return *living;
}

} // namespace

void Backend::abort_all(const char* why) {
  std::lock_guard<std::mutex> lock(living().mutex);
  for (Backend* backend : living().all) {
    if (getpid() == backend->process_) backend->abort_because(why);
  }
}

Backend::Backend(
    c10::intrusive_ptr<c10d::Store> store, int rank, int size, milliseconds timeout, std::string label)
    : c10d::Backend(rank, size), label_(std::move(label)), timeout_(clamped(timeout)), process_(getpid()) {
  Runner::process().begin();
  const rcclUniqueId id = meet(*store, rank, timeout);
  rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
  config.timeoutMs = clamped(timeout);
  config.initTimeoutMs = clamped(timeout);
  config.commName = label_.c_str();
  comm_ = join(id, rank, size, config);
  try {
    messages_ = std::make_shared<Messages>(comm_, rank, size);
    // Before the communicators for messages, which have the same two ranks: both ranks make them in one order.
    if (size == 2) check(rcclCommShrink(comm_, nullptr, 0, &sparse_comm_, nullptr, RCCL_SHRINK_DEFAULT), "init");
  } catch (...) {
    rcclCommAbort(comm_);
    throw;
  }
  std::lock_guard<std::mutex> lock(living().mutex);
  living().all.insert(this);
}

Backend::~Backend() {
  {
    std::lock_guard<std::mutex> lock(living().mutex);
    living().all.erase(this);
  }
  // A forked child's is its parent's.
  if (getpid() == process_) close(false);
}

// Under the lock of the order.
void Backend::refuse_closed(const char* call) const {
  if (getpid() != process_) {
    std::rethrow_exception(error(c10::str(
        "rccl ", call, ": the process group belongs to process ", process_, ", and this is its child ", getpid(),
        ": initialize one after fork")));
  }
  if (!open_) std::rethrow_exception(error(c10::str("rccl ", call, ": the process group was shut down")));
}

milliseconds Backend::allowed(milliseconds asked) const {
  return asked == c10d::kUnsetTimeout ? milliseconds(timeout_.load()) : milliseconds(clamped(asked));
}

uint64_t Backend::getSequenceNumberForGroup() {
  std::lock_guard<std::mutex> lock(order_);
  return sequence_;
}

c10::intrusive_ptr<Work> Backend::new_work(const Call& call, Buffers buffers, Tensors results) {
  auto work = c10::make_intrusive<Work>(
      rank_, call.type, call.name, std::move(buffers), std::move(results), sequence_, call.timeout);
  work->profile(call.inputs);
  return work;
}

Backend::Result Backend::started(c10::intrusive_ptr<Work> work, rcclComm_t comm) {
  work->give_up = [comm](const char* why) { rcclCommRevokeBecause(comm, why); };
  if (coalesced_) coalesced_->push_back(work);
  return work;
}

void Backend::startCoalescing() {
  coalesced_.emplace();
}

Backend::Result Backend::endCoalescing() {
  std::vector<Result> works = std::move(coalesced_).value_or(std::vector<Result>());
  coalesced_.reset();
  return c10::make_intrusive<Works>(rank_, std::move(works));
}

at::Tensor Backend::allocateTensor(long size, at::TensorOptions options) {
  const auto type = c10::typeMetaToScalarType(options.dtype());
  void* memory = nullptr;
  check(rcclMemAlloc(&memory, std::max<size_t>(1, size * c10::elementSize(type))), "allocate_tensor");
  return at::from_blob(memory, {size}, [](void* memory) { rcclMemFree(memory); }, options.device(at::kCPU));
}

void Backend::abort() {
  abort_because("abort was called");
}

void Backend::abort_because(const char* why) {
  messages_->abort(why);
  std::lock_guard<std::mutex> lock(sparse_order_);
  if (sparse_comm_ != nullptr) rcclCommRevokeBecause(sparse_comm_, why);
  // Also while a shutdown waits for what is under way; a handle that is gone is refused.
  rcclCommRevokeBecause(comm_, why);
}

void Backend::shutdown() {
  if (auto raised = close(true)) std::rethrow_exception(raised);
}

// Leaves. What is under way ends before, if that is waited for; else it fails.
std::exception_ptr Backend::close(bool wait) {
  {
    std::lock_guard<std::mutex> lock(order_);
    if (!std::exchange(open_, false)) return nullptr;
  }
  std::exception_ptr raised = wait ? under_way_->work_off() : nullptr;
  if (auto later = messages_->close(wait && !raised)) raised = later;
  sparse_runner_.reset();
  const bool idle = under_way_->is_empty();
  if (sparse_comm_ != nullptr) idle ? rcclCommDestroy(sparse_comm_) : rcclCommAbort(sparse_comm_);
  idle ? rcclCommDestroy(comm_) : rcclCommAbort(comm_);
  under_way_->work_off_undisturbed();
  return raised;
}

void Backend::setTimeout(milliseconds timeout) {
  timeout_ = clamped(timeout);
}

c10::intrusive_ptr<c10d::Backend::Options> Backend::getBackendOptions() {
  return c10::make_intrusive<Options>("rccl", milliseconds(timeout_.load()));
}

c10::intrusive_ptr<c10d::Backend> Backend::split(
    const c10::intrusive_ptr<c10d::Store>& store, const std::vector<int>& ranks,
    const c10::intrusive_ptr<Options>& opts) {
  {
    std::lock_guard<std::mutex> lock(order_);
    refuse_closed("split");
  }
  for (const int rank : ranks) {
    if (rank >= 0 && rank < size_) continue;
    // torch does not look, and who waited for such a rank would wait in vain.
    std::rethrow_exception(error(c10::str("rccl split: there is no rank ", rank, " in a group of ", size_, " ranks")));
  }
  const auto mine = std::find(ranks.begin(), ranks.end(), rank_);
  if (mine == ranks.end()) return nullptr;
  const auto timeout = opts ? opts->timeout : milliseconds(timeout_.load());
  std::string name = "split";
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 9
  if (opts && !opts->group_name.empty()) name = opts->group_name;
#endif
  return c10::make_intrusive<Backend>(
      store, static_cast<int>(mine - ranks.begin()), static_cast<int>(ranks.size()), timeout, label_ + "/" + name);
}

} // namespace rccl_torch
