// The sum of sparse tensors: each rank's entries are gathered, and added here.
#include <numeric>

#include "backend.h"
#include "error.h"
#include "launch.h"

namespace rccl_torch {

Backend::Result Backend::allreduce_sparse(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  return sparse(only(tensors, "all_reduce"), opts);
}

// How many entries the others have is known only after a call, so a thread makes these calls one after the other, on a communicator
// of their own: their order among themselves is the program's, whatever else it does.
Backend::Result Backend::sparse(const at::Tensor& tensor, const c10d::AllreduceOptions& opts) {
  const Call call{c10d::OpType::_ALLREDUCE_SPARSE, "all_reduce of sparse tensors", allowed(opts.timeout)};
  if (opts.reduceOp.op_ != c10d::ReduceOp::SUM) {
    std::rethrow_exception(error(c10::str("rccl ", call.name, ": they have a sum only")));
  }
  if (tensor.layout() != at::kSparse || !tensor.device().is_cpu()) {
    std::rethrow_exception(error(c10::str(
        "rccl ", call.name, ": this one is ", tensor.layout(), " on ", tensor.device(),
        ", where a sparse (COO) one on the CPU is needed")));
  }
  c10::intrusive_ptr<rccl_torch::Work> work;
  {
    std::lock_guard<std::mutex> lock(order_);
    refuse_closed(call.name);
    ++sequence_;
    work = new_work(call, Buffers(call.name), {tensor});
  }
  rcclComm_t comm;
  {
    std::lock_guard<std::mutex> lock(sparse_order_);
    if (sparse_comm_ == nullptr) {
      check(rcclCommShrink(comm_, nullptr, 0, &sparse_comm_, nullptr, RCCL_SHRINK_DEFAULT), call.name);
    }
    comm = sparse_comm_;
    if (!sparse_runner_) sparse_runner_ = std::make_unique<Runner>();
    sparse_runner_->begin();
  }
  // Before it may end, and without a lock: this may run what the program wants.
  under_way_->add(work);
  {
    std::lock_guard<std::mutex> lock(sparse_order_);
    sparse_runner_->run([this, work, tensor = tensor, timeout = call.timeout]() mutable {
      std::exception_ptr exception;
      try {
        sum_sparse(tensor, timeout);
      } catch (...) {
        exception = std::current_exception();
      }
      work->ended(exception);
    });
  }
  return started(work, comm);
}

void Backend::sum_sparse(at::Tensor& tensor, std::chrono::milliseconds timeout) {
  const char* call = "all_reduce of sparse tensors";
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::Tensor own = tensor.coalesce();
  const at::Tensor indices = own._indices().contiguous(), values = own._values().contiguous();
  const Elements elements(values.scalar_type());
  rcclStream_t stream;
  check(rcclStreamCreate(&stream), call);
  std::shared_ptr<void> owner(stream, [](void* stream) { rcclStreamDestroy(static_cast<rcclStream_t>(stream)); });
  check(rcclStreamSetTimeout(stream, static_cast<int>(timeout.count())), call);

  // Of each rank: how many entries, and by how many dimensions they are found.
  std::vector<int64_t> told(2 * size_, 0);
  told[2 * rank_] = own._nnz();
  told[2 * rank_ + 1] = own.sparse_dim();
  check(rcclAllGather(&told[2 * rank_], told.data(), 2, rcclInt64, sparse_comm_, stream), call);
  check(rcclStreamSynchronize(stream), call);
  std::vector<int64_t> entries;
  for (int rank = 0; rank < size_; ++rank) {
    entries.push_back(told[2 * rank]);
    if (told[2 * rank + 1] != told[1]) {
      std::rethrow_exception(error(c10::str(
          "rccl ", call, ": mismatch: the tensor of rank 0 has ", told[1], " sparse dimensions, and that of rank ", rank, " has ",
          told[2 * rank + 1])));
    }
  }

  const int64_t all = std::accumulate(entries.begin(), entries.end(), int64_t{0});
  const int64_t dims = own.sparse_dim();
  std::vector<int64_t> shape = values.sizes().vec();
  const size_t width = values.numel() == 0 || own._nnz() == 0 ? 0 : values.numel() / own._nnz();
  shape[0] = all;
  at::Tensor all_values = at::empty(shape, values.options());
  const size_t block = all == 0 ? width : all_values.numel() / all;
  // Indices entry by entry, so that each rank's are one block.
  const at::Tensor by_entry = indices.t().contiguous();
  at::Tensor all_indices = at::empty({all, dims}, indices.options());
  std::vector<size_t> of_indices, of_values;
  for (int64_t of_rank : entries) {
    of_indices.push_back(of_rank * dims);
    of_values.push_back(of_rank * block * elements.per);
  }
  check(
      rcclAllGatherV(
          by_entry.const_data_ptr(), all_indices.data_ptr(), of_indices.data(), rcclInt64, sparse_comm_, stream),
      call);
  // Before anything else can throw: what is under way has its memory here.
  check(rcclStreamSynchronize(stream), call);
  check(
      rcclAllGatherV(
          values.const_data_ptr(), all_values.data_ptr(), of_values.data(), elements.type, sparse_comm_, stream),
      call);
  check(rcclStreamSynchronize(stream), call);
  const at::Tensor sum =
      at::_sparse_coo_tensor_unsafe(all_indices.t().contiguous(), all_values, tensor.sizes()).coalesce();
  tensor.copy_(sum);
}

} // namespace rccl_torch
