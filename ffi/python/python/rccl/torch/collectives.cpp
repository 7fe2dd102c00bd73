// Collectives, each one call of the library's.
#include <algorithm>
#include <deque>
#include <numeric>

#include "backend.h"
#include "error.h"
#include "launch.h"

namespace rccl_torch {

using c10d::OpType;

namespace {

std::vector<size_t> counts_of(const std::vector<at::Tensor>& tensors, size_t per) {
  std::vector<size_t> counts;
  for (const at::Tensor& tensor : tensors) counts.push_back(static_cast<size_t>(tensor.numel()) * per);
  return counts;
}

bool are_equal(const std::vector<size_t>& counts) {
  return std::all_of(counts.begin(), counts.end(), [&](size_t count) { return count == counts[0]; });
}

[[noreturn]] void refuse(const char* call, const std::string& what) {
  std::rethrow_exception(error(c10::str("rccl ", call, ": ", what)));
}

void same_type(const char* call, const at::Tensor& one, const at::Tensor& other) {
  if (one.scalar_type() != other.scalar_type()) {
    refuse(call, c10::str("output and input have one type, not ", one.scalar_type(), " and ", other.scalar_type()));
  }
}

void has_elements(const char* call, const char* which, const at::Tensor& tensor, int64_t wanted) {
  if (tensor.numel() != wanted) {
    refuse(call, c10::str("the ", which, " has ", tensor.numel(), " elements where ", wanted, " are needed"));
  }
}

} // namespace

const at::Tensor& Backend::only(const Tensors& tensors, const char* call) const {
  if (tensors.size() != 1) refuse(call, c10::str("one tensor is needed, not ", tensors.size()));
  return tensors[0];
}

void Backend::one_each(const Tensors& tensors, const char* call) const {
  if (tensors.size() != static_cast<size_t>(size_)) {
    refuse(call, c10::str("a tensor for each of ", size_, " ranks is needed, not ", tensors.size()));
  }
}

int Backend::root(int64_t rank, const char* call) const {
  if (rank < 0 || rank >= size_) refuse(call, c10::str("rank ", rank, " is no root in a group of ", size_, " ranks"));
  return static_cast<int>(rank);
}

Backend::Result Backend::broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) {
  const Call call{OpType::BROADCAST, "broadcast", allowed(opts.timeout), opts.asyncOp};
  const int root = this->root(opts.rootRank, call.name);
  Buffers buffers(call.name);
  const at::Tensor& given = only(tensors, call.name);
  const at::Tensor tensor = root == rank_ ? buffers.input(given) : buffers.output(given);
  const Elements elements(tensor.scalar_type());
  return launch(call, std::move(buffers), tensors, [&](rcclStream_t stream) {
    check(rcclBcast(tensor.data_ptr(), elements.count(tensor), elements.type, root, comm_, stream), call.name);
  });
}

Backend::Result Backend::allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  const Call call{OpType::ALLREDUCE, "all_reduce", allowed(opts.timeout), opts.asyncOp};
  const at::Tensor& given = only(tensors, call.name);
  if (given.layout() == at::kSparse) return sparse(given, opts);
  Buffers buffers(call.name);
  const at::Tensor tensor = buffers.both(given);
  const Reduction reduction(opts.reduceOp, tensor.scalar_type(), comm_, call.name);
  return launch(call, std::move(buffers), tensors, [&](rcclStream_t stream) {
    void* memory = tensor.data_ptr();
    check(
        rcclAllReduce(memory, memory, reduction.count(tensor), reduction.type, reduction.op, comm_, stream), call.name);
  });
}

Backend::Result Backend::allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) {
  const Call call{OpType::ALLREDUCE_COALESCED, "all_reduce_coalesced", allowed(opts.timeout), opts.asyncOp};
  if (tensors.empty()) refuse(call.name, "a list without tensors");
  Buffers buffers(call.name);
  Tensors all;
  std::deque<Reduction> reductions; // before the group: what throws in there would leave calls without their tensors
  for (const at::Tensor& tensor : tensors) {
    all.push_back(buffers.both(tensor));
    reductions.emplace_back(opts.reduceOp, tensor.scalar_type(), comm_, call.name);
  }
  return launch(call, std::move(buffers), tensors, [&](rcclStream_t stream) {
    Group group;
    for (size_t i = 0; i < all.size(); ++i) {
      const Reduction& reduction = reductions[i];
      void* memory = all[i].data_ptr();
      check(
          rcclAllReduce(memory, memory, reduction.count(all[i]), reduction.type, reduction.op, comm_, stream),
          call.name);
    }
    group.end(call.name);
  });
}

Backend::Result Backend::reduce(Tensors& tensors, const c10d::ReduceOptions& opts) {
  const Call call{OpType::REDUCE, "reduce", allowed(opts.timeout), opts.asyncOp};
  const int root = this->root(opts.rootRank, call.name);
  Buffers buffers(call.name);
  const at::Tensor& given = only(tensors, call.name);
  const at::Tensor tensor = root == rank_ ? buffers.both(given) : buffers.input(given);
  const Reduction reduction(opts.reduceOp, tensor.scalar_type(), comm_, call.name);
  return launch(call, std::move(buffers), tensors, [&](rcclStream_t stream) {
    void* memory = tensor.data_ptr();
    void* result = root == rank_ ? memory : nullptr;
    check(
        rcclReduce(memory, result, reduction.count(tensor), reduction.type, reduction.op, root, comm_, stream),
        call.name);
  });
}

Backend::Result Backend::allgather(
    std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  const Call call{OpType::ALLGATHER, "all_gather", allowed(opts.timeout), opts.asyncOp, inputs};
  const at::Tensor& given = only(inputs, call.name);
  if (outputs.size() != 1) refuse(call.name, c10::str("one list of outputs is needed, not ", outputs.size()));
  one_each(outputs[0], call.name);
  Buffers buffers(call.name);
  const at::Tensor input = buffers.input(given), output = buffers.outputs(outputs[0]);
  same_type(call.name, output, input);
  const Elements elements(input.scalar_type());
  const std::vector<size_t> counts = counts_of(outputs[0], elements.per);
  has_elements(call.name, "input", input, outputs[0][rank_].numel());
  return launch(call, std::move(buffers), outputs[0], [&](rcclStream_t stream) {
    const void* from = input.const_data_ptr();
    void* to = output.data_ptr();
    check(
        are_equal(counts) ? rcclAllGather(from, to, counts[0], elements.type, comm_, stream)
                          : rcclAllGatherV(from, to, counts.data(), elements.type, comm_, stream),
        call.name);
  });
}

Backend::Result Backend::_allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& opts) {
  Tensors outputs{output}, inputs{input};
  return allgather_into_tensor_coalesced(outputs, inputs, opts);
}

Backend::Result Backend::allgather_into_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  const Call call{
      outputs.size() == 1 ? OpType::_ALLGATHER_BASE : OpType::COALESCED, "all_gather_into_tensor",
      allowed(opts.timeout), opts.asyncOp, inputs};
  if (outputs.size() != inputs.size() || outputs.empty()) {
    refuse(call.name, c10::str(outputs.size(), " outputs and ", inputs.size(), " inputs"));
  }
  Buffers buffers(call.name);
  Tensors to, from;
  for (size_t i = 0; i < outputs.size(); ++i) {
    to.push_back(buffers.output(outputs[i]));
    from.push_back(buffers.input(inputs[i]));
    same_type(call.name, to[i], from[i]);
    has_elements(call.name, "output", to[i], from[i].numel() * size_);
  }
  return gather_each(call, std::move(buffers), from, to, outputs);
}

// One all_gather for each pair, all of them one call.
Backend::Result Backend::gather_each(
    const Call& call, Buffers buffers, const Tensors& from, const Tensors& to, Tensors results) {
  std::vector<Elements> elements; // before the group, as reductions are
  for (const at::Tensor& tensor : from) elements.emplace_back(tensor.scalar_type());
  return launch(call, std::move(buffers), std::move(results), [&](rcclStream_t stream) {
    Group group;
    for (size_t i = 0; i < to.size(); ++i) {
      check(
          rcclAllGather(
              from[i].const_data_ptr(), to[i].data_ptr(), elements[i].count(from[i]), elements[i].type, comm_, stream),
          call.name);
    }
    group.end(call.name);
  });
}

// The outputs are indexed by rank, then by tensor.
Backend::Result Backend::allgather_coalesced(
    std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  const Call call{OpType::ALLGATHER_COALESCED, "all_gather_coalesced", allowed(opts.timeout), opts.asyncOp, inputs};
  if (outputs.size() != static_cast<size_t>(size_) || inputs.empty()) {
    refuse(call.name, c10::str(outputs.size(), " lists of outputs for ", size_, " ranks and ", inputs.size(), " inputs"));
  }
  Buffers buffers(call.name);
  Tensors to, from, results;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Tensors of_all;
    for (const Tensors& of_rank : outputs) {
      if (of_rank.size() != inputs.size()) {
        refuse(call.name, c10::str("a list of ", of_rank.size(), " outputs for ", inputs.size(), " inputs"));
      }
      has_elements(call.name, "output", of_rank[i], inputs[i].numel());
      of_all.push_back(of_rank[i]);
      results.push_back(of_rank[i]);
    }
    from.push_back(buffers.input(inputs[i]));
    to.push_back(buffers.outputs(of_all));
    same_type(call.name, to[i], from[i]);
  }
  return gather_each(call, std::move(buffers), from, to, std::move(results));
}

Backend::Result Backend::gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& opts) {
  const Call call{OpType::GATHER, "gather", allowed(opts.timeout), opts.asyncOp, inputs};
  const int root = this->root(opts.rootRank, call.name);
  Buffers buffers(call.name);
  const at::Tensor input = buffers.input(only(inputs, call.name));
  const Elements elements(input.scalar_type());
  at::Tensor output;
  Tensors results;
  if (root == rank_) {
    if (outputs.size() != 1) refuse(call.name, c10::str("the root needs one list of outputs, not ", outputs.size()));
    results = outputs[0];
    one_each(results, call.name);
    for (const at::Tensor& tensor : results) has_elements(call.name, "output", tensor, input.numel());
    output = buffers.outputs(results);
    same_type(call.name, output, input);
  } else if (!outputs.empty()) {
    refuse(call.name, "only the root has outputs");
  }
  return launch(call, std::move(buffers), results, [&](rcclStream_t stream) {
    check(
        rcclGather(
            input.const_data_ptr(), output.defined() ? output.data_ptr() : nullptr, elements.count(input),
            elements.type, root, comm_, stream),
        call.name);
  });
}

Backend::Result Backend::scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& opts) {
  Call call{OpType::SCATTER, "scatter", allowed(opts.timeout), opts.asyncOp};
  const int root = this->root(opts.rootRank, call.name);
  Buffers buffers(call.name);
  const at::Tensor output = buffers.output(only(outputs, call.name));
  const Elements elements(output.scalar_type());
  at::Tensor input;
  if (root == rank_) {
    if (inputs.size() != 1) refuse(call.name, c10::str("the root needs one list of inputs, not ", inputs.size()));
    one_each(inputs[0], call.name);
    for (const at::Tensor& tensor : inputs[0]) has_elements(call.name, "input", tensor, output.numel());
    input = buffers.inputs(inputs[0]);
    call.inputs = inputs[0];
    same_type(call.name, output, input);
  } else if (!inputs.empty()) {
    refuse(call.name, "only the root has inputs");
  }
  return launch(call, std::move(buffers), outputs, [&](rcclStream_t stream) {
    check(
        rcclScatter(
            input.defined() ? input.const_data_ptr() : nullptr, output.data_ptr(), elements.count(output),
            elements.type, root, comm_, stream),
        call.name);
  });
}

Backend::Result Backend::reduce_scatter(
    Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ReduceScatterOptions& opts) {
  Call call{OpType::REDUCE_SCATTER, "reduce_scatter", allowed(opts.timeout), opts.asyncOp};
  if (inputs.size() != 1) refuse(call.name, c10::str("one list of inputs is needed, not ", inputs.size()));
  one_each(inputs[0], call.name);
  call.inputs = inputs[0];
  Buffers buffers(call.name);
  const at::Tensor output = buffers.output(only(outputs, call.name)), input = buffers.inputs(inputs[0]);
  same_type(call.name, output, input);
  has_elements(call.name, "output", output, inputs[0][rank_].numel());
  const Reduction reduction(opts.reduceOp, input.scalar_type(), comm_, call.name);
  const std::vector<size_t> counts = counts_of(inputs[0], reduction.per);
  return launch(call, std::move(buffers), outputs, [&](rcclStream_t stream) {
    const void* from = input.const_data_ptr();
    void* to = output.data_ptr();
    check(
        are_equal(counts)
            ? rcclReduceScatter(from, to, counts[0], reduction.type, reduction.op, comm_, stream)
            : rcclReduceScatterV(from, to, counts.data(), reduction.type, reduction.op, comm_, stream),
        call.name);
  });
}

Backend::Result Backend::_reduce_scatter_base(
    at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& opts) {
  Tensors outputs{output}, inputs{input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, opts);
}

Backend::Result Backend::reduce_scatter_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) {
  const Call call{
      outputs.size() == 1 ? OpType::_REDUCE_SCATTER_BASE : OpType::COALESCED,
      "reduce_scatter_tensor", allowed(opts.timeout), opts.asyncOp, inputs};
  if (outputs.size() != inputs.size() || outputs.empty()) {
    refuse(call.name, c10::str(outputs.size(), " outputs and ", inputs.size(), " inputs"));
  }
  Buffers buffers(call.name);
  Tensors to, from;
  std::deque<Reduction> reductions;
  for (size_t i = 0; i < outputs.size(); ++i) {
    to.push_back(buffers.output(outputs[i]));
    from.push_back(buffers.input(inputs[i]));
    same_type(call.name, to[i], from[i]);
    has_elements(call.name, "input", from[i], to[i].numel() * size_);
    reductions.emplace_back(opts.reduceOp, from[i].scalar_type(), comm_, call.name);
  }
  return launch(call, std::move(buffers), outputs, [&](rcclStream_t stream) {
    Group group;
    for (size_t i = 0; i < to.size(); ++i) {
      const Reduction& reduction = reductions[i];
      check(
          rcclReduceScatter(
              from[i].const_data_ptr(), to[i].data_ptr(), reduction.count(to[i]), reduction.type, reduction.op, comm_,
              stream),
          call.name);
    }
    group.end(call.name);
  });
}

Backend::Result Backend::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) {
  const Call call{OpType::ALLTOALL, "all_to_all", allowed(opts.timeout), opts.asyncOp, inputs};
  one_each(outputs, call.name);
  one_each(inputs, call.name);
  Buffers buffers(call.name);
  const at::Tensor input = buffers.inputs(inputs), output = buffers.outputs(outputs);
  same_type(call.name, output, input);
  const Elements elements(input.scalar_type());
  const std::vector<size_t> sent = counts_of(inputs, elements.per), received = counts_of(outputs, elements.per);
  return launch(call, std::move(buffers), outputs, [&](rcclStream_t stream) {
    check(
        rcclAlltoAllV(
            input.const_data_ptr(), sent.data(), output.data_ptr(), received.data(), elements.type, comm_, stream),
        call.name);
  });
}

Backend::Result Backend::alltoall_base(
    at::Tensor& given_output, at::Tensor& given_input, std::vector<int64_t>& output_splits,
    std::vector<int64_t>& input_splits, const c10d::AllToAllOptions& opts) {
  const Call call{OpType::ALLTOALL_BASE, "all_to_all_single", allowed(opts.timeout), opts.asyncOp, given_input};
  Buffers buffers(call.name);
  const at::Tensor input = buffers.input(given_input), output = buffers.output(given_output);
  same_type(call.name, output, input);
  const Elements elements(input.scalar_type());
  const bool even = output_splits.empty() && input_splits.empty();
  // What goes to, or comes from, each rank: rows of the first dimension.
  const auto counts = [&](const at::Tensor& tensor, const std::vector<int64_t>& splits, const char* which) {
    std::vector<size_t> counts(size_, elements.count(tensor) / size_);
    const int64_t rows = tensor.dim() == 0 ? 0 : tensor.size(0);
    if (splits.empty()) {
      if (rows % size_ != 0) {
        refuse(call.name, c10::str("the ", which, " has ", rows, " rows, which ", size_, " ranks cannot share evenly"));
      }
      return counts;
    }
    const int64_t sum = std::accumulate(splits.begin(), splits.end(), int64_t{0});
    if (splits.size() != static_cast<size_t>(size_) || sum != rows ||
        std::any_of(splits.begin(), splits.end(), [](int64_t split) { return split < 0; })) {
      refuse(
          call.name,
          c10::str(
              "the ", which, "'s ", splits.size(), " splits (", splits, ") do not share its ", rows, " rows among ",
              size_, " ranks"));
    }
    const size_t row = rows == 0 ? 0 : elements.count(tensor) / rows;
    for (int rank = 0; rank < size_; ++rank) counts[rank] = splits[rank] * row;
    return counts;
  };
  const auto sent = counts(input, input_splits, "input"), received = counts(output, output_splits, "output");
  if (even) has_elements(call.name, "output", output, input.numel());
  return launch(call, std::move(buffers), {given_output}, [&](rcclStream_t stream) {
    const void* from = input.const_data_ptr();
    void* to = output.data_ptr();
    check(
        even ? rcclAlltoAll(from, to, sent[0], elements.type, comm_, stream)
             : rcclAlltoAllV(from, sent.data(), to, received.data(), elements.type, comm_, stream),
        call.name);
  });
}

Backend::Result Backend::barrier(const c10d::BarrierOptions& opts) {
  const Call call{OpType::BARRIER, "barrier", allowed(opts.timeout), opts.asyncOp};
  return launch(call, Buffers(call.name), {}, [&](rcclStream_t stream) {
    check(rcclBarrier(comm_, stream), call.name);
  });
}

} // namespace rccl_torch
