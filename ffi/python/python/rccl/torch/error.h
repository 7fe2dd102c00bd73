// What the library says, as exceptions of torch.
#pragma once

#include <c10/util/Exception.h>
#include <roceccl.h>

#include <exception>
#include <string>

namespace rccl_torch {

// torch.distributed.DistBackendError in Python.
inline std::exception_ptr error(const std::string& text) {
  return std::make_exception_ptr(c10::DistBackendError({__func__, __FILE__, __LINE__}, text));
}

// Why a call failed, with all that the library says of it.
inline std::exception_ptr failure(const std::string& call, rcclResult_t result, const char* words) {
  const char* what = result == rcclTimeout ? " ended by a timeout (its own, or that of another rank): " : ": ";
  return error("rccl " + call + what + words);
}

// Throws for a function that failed on this thread.
inline void check(rcclResult_t result, const std::string& call) {
  if (result != rcclSuccess && result != rcclInProgress) {
    std::rethrow_exception(failure(call, result, rcclGetLastError(nullptr)));
  }
}

} // namespace rccl_torch
