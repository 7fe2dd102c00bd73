// A thread that runs what it is given.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace rccl_torch {

using Clock = std::chrono::steady_clock;

// Runs functions one after the other, in the order in which they come or when their time has come, on a thread of its own
// that begins with the first one. When the runner goes, what was given without a time is worked off, and nobody waits for that.
class Runner {
 public:
  Runner();
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Starts the thread, if it is not there yet: who runs something may be where nothing can be thrown.
  void begin();
  void run(std::function<void()> function);
  void run_at(Clock::time_point time, std::function<void()> function);

  // The process's own, for ends of calls that nobody waits for. It never goes: functions may come until the process ends.
  // A forked child has another one.
  static Runner& process();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

} // namespace rccl_torch
