// Calls that are submitted together.
#pragma once

#include <roceccl.h>

#include "error.h"

namespace rccl_torch {

// From here to `end` this thread's calls are gathered; if one of them is refused, none is made.
class Group {
 public:
  Group() {
    rcclGroupStart();
  }
  ~Group() {
    if (open_) rcclGroupEnd();
  }
  void end(const char* call) {
    open_ = false;
    check(rcclGroupEnd(), call);
  }

 private:
  bool open_ = true;
};

} // namespace rccl_torch
