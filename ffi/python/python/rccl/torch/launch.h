// How a call is made; see Backend::launch.
#pragma once

#include "backend.h"
#include "error.h"
#include "group.h"

namespace rccl_torch {

template <class Make>
Backend::Result Backend::launch(const Call& call, Buffers buffers, Tensors results, Make&& make) {
  c10::intrusive_ptr<rccl_torch::Work> work;
  {
    std::lock_guard<std::mutex> lock(order_);
    refuse_closed(call.name);
    ++sequence_;
    work = new_work(call, std::move(buffers), std::move(results));
    if (!call.async && !coalesced_) work->leave_to_waiter();
    make(work->stream());
  }
  under_way_->add(work);
  work->made();
  return started(work);
}

} // namespace rccl_torch
