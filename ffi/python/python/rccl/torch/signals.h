// Ctrl-C, which Python attends to only when it is asked.
#pragma once

#include <functional>

namespace rccl_torch {

// Has Python run its handlers of signals that have come. What one raises is told to `give_up` in words, and thrown. On threads
// that run no handlers it does nothing.
void attend_to_signals(const std::function<void(const char* why)>& give_up);

} // namespace rccl_torch
