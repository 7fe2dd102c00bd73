// Ctrl-C, which Python attends to only when it is asked.
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <chrono>
#include <functional>

namespace rccl_torch {

// How long a signal may wait at most.
constexpr auto SLICE = std::chrono::milliseconds(50);

// What a handler of a signal raised.
using Interrupt = pybind11::error_already_set;

// Has Python run its handlers of signals that have come. What one raises is told to `give_up` in words, and thrown: an Interrupt.
// On threads that run no handlers it does nothing.
void attend_to_signals(const std::function<void(const char* why)>& give_up);

} // namespace rccl_torch
