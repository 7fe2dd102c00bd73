#include "signals.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <string>

namespace rccl_torch {

void attend_to_signals(const std::function<void(const char* why)>& give_up) {
  // Python runs them on its main thread, which is the process's; others need not wait for the interpreter.
  if (syscall(SYS_gettid) != getpid() || Py_IsInitialized() == 0) return;
  pybind11::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() == 0) return;
  Interrupt raised;
  if (give_up) {
    // As rccl.Communicator says it.
    auto why = raised.type().attr("__name__").cast<std::string>();
    const auto text = pybind11::str(raised.value()).cast<std::string>();
    if (!text.empty()) why += ": " + text;
    if (raised.matches(PyExc_KeyboardInterrupt)) why += " (Ctrl-C)";
    give_up(why.c_str());
  }
  throw raised;
}

} // namespace rccl_torch
