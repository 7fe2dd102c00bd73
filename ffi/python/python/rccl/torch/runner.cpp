#include "runner.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

namespace rccl_torch {

struct Runner::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::multimap<Clock::time_point, std::function<void()>> functions;
  bool started = false;
  bool closed = false;

  void loop() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      auto first = functions.begin();
      if (first == functions.end() || (closed && first->first > Clock::now())) {
        if (closed) return;
        changed.wait(lock);
      } else if (first->first > Clock::now()) {
        changed.wait_until(lock, first->first);
      } else {
        std::function<void()> function = std::move(first->second);
        functions.erase(first);
        lock.unlock();
        function();
        function = nullptr;
        lock.lock();
      }
    }
  }
};

Runner::Runner() : state_(std::make_shared<State>()) {}

Runner::~Runner() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->closed = true;
  state_->changed.notify_all();
}

void Runner::run(std::function<void()> function) {
  run_at(Clock::time_point::min(), std::move(function));
}

void Runner::run_at(Clock::time_point time, std::function<void()> function) {
  begin();
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->functions.emplace(time, std::move(function));
  state_->changed.notify_all();
}

void Runner::begin() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (state_->started) return;
  // Signals are the program's business.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::exception_ptr exception;
  try {
    std::thread([state = state_] {
      pthread_setname_np(pthread_self(), "rccl-torch");
      state->loop();
    }).detach();
    state_->started = true;
  } catch (...) {
    exception = std::current_exception();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (exception) std::rethrow_exception(exception);
}

Runner& Runner::process() {
  struct Own {
    pid_t pid;
    Runner runner;
  };
  static std::atomic<Own*> current{nullptr};
  Own* own = current.load();
  if (own == nullptr || own->pid != getpid()) {
    auto* fresh = new Own{getpid(), {}};
    if (current.compare_exchange_strong(own, fresh)) return fresh->runner;
    delete fresh;
    own = current.load();
  }
  return own->runner;
}

} // namespace rccl_torch
