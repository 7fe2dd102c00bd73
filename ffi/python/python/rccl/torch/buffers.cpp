#include "buffers.h"

#include "error.h"

namespace rccl_torch {

namespace {

// The library's type for a type of torch's, if it has one.
bool same_type(at::ScalarType type, rcclDataType_t& found) {
  switch (type) {
    case at::kChar: found = rcclInt8; return true;
    case at::kByte: found = rcclUint8; return true;
    case at::kInt: found = rcclInt32; return true;
    case at::kUInt32: found = rcclUint32; return true;
    case at::kLong: found = rcclInt64; return true;
    case at::kUInt64: found = rcclUint64; return true;
    case at::kHalf: found = rcclFloat16; return true;
    case at::kFloat: found = rcclFloat32; return true;
    case at::kDouble: found = rcclFloat64; return true;
    case at::kBFloat16: found = rcclBfloat16; return true;
    case at::kFloat8_e4m3fn: found = rcclFloat8e4m3; return true;
    case at::kFloat8_e5m2: found = rcclFloat8e5m2; return true;
    default: return false;
  }
}

const char* name(const c10d::ReduceOp& op) {
  switch (op.op_) {
    case c10d::ReduceOp::SUM: return "sum";
    case c10d::ReduceOp::AVG: return "avg";
    case c10d::ReduceOp::PRODUCT: return "product";
    case c10d::ReduceOp::MIN: return "min";
    case c10d::ReduceOp::MAX: return "max";
    case c10d::ReduceOp::BAND: return "bitwise and";
    case c10d::ReduceOp::BOR: return "bitwise or";
    case c10d::ReduceOp::BXOR: return "bitwise xor";
    case c10d::ReduceOp::PREMUL_SUM: return "pre-multiplied sum";
    default: return "an unknown operator";
  }
}

// Contiguous memory that holds what the tensor says.
bool is_plain(const at::Tensor& tensor) {
  return tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

// Where each tensor begins where the one before ends: the first of them. Tensors without elements lie nowhere.
const at::Tensor* first_of_adjacent(const std::vector<at::Tensor>& tensors) {
  const at::Tensor* first = nullptr;
  const char* next = nullptr;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.numel() == 0) continue;
    if (first == nullptr) first = &tensor;
    auto* begin = static_cast<const char*>(tensor.const_data_ptr());
    if (!is_plain(tensor) || !tensor.is_alias_of(*first) || (next != nullptr && begin != next)) return nullptr;
    next = begin + tensor.nbytes();
  }
  return first;
}

at::Tensor flat_like(const std::vector<at::Tensor>& tensors) {
  int64_t all = 0;
  for (const at::Tensor& tensor : tensors) all += tensor.numel();
  return at::empty({all}, at::TensorOptions().dtype(tensors[0].scalar_type()));
}

// No autograd, version counters or inference mode: these copies are part of a call.
using Below = at::AutoDispatchBelowADInplaceOrView;

} // namespace

Elements::Elements(at::ScalarType scalar) : type(rcclUint8), per(c10::elementSize(scalar)) {
  if (scalar == at::kComplexFloat || scalar == at::kComplexDouble) {
    type = scalar == at::kComplexFloat ? rcclFloat32 : rcclFloat64;
    per = 2;
  } else if (same_type(scalar, type)) {
    per = 1;
  }
}

Reduction::Reduction(const c10d::ReduceOp& by, at::ScalarType scalar, rcclComm_t comm, const char* call) {
  using Op = c10d::ReduceOp;
  const bool is_bool = scalar == at::kBool;
  const bool is_complex = scalar == at::kComplexFloat || scalar == at::kComplexDouble;
  auto refuse = [&](const char* why) {
    std::rethrow_exception(error(c10::str("rccl ", call, ": ", name(by), " of ", scalar, " tensors: ", why)));
  };
  if (is_complex) {
    type = scalar == at::kComplexFloat ? rcclFloat32 : rcclFloat64;
    per = 2;
    if (by.op_ != Op::SUM && by.op_ != Op::AVG) refuse("complex numbers have sum and avg only");
  } else if (is_bool) {
    type = rcclUint8;
  } else if (!same_type(scalar, type)) {
    refuse("this type can be moved, but not reduced; convert the tensor first");
  }
  switch (by.op_) {
    case Op::SUM: op = is_bool ? rcclMax : rcclSum; break;
    case Op::PRODUCT: op = is_bool ? rcclMin : rcclProd; break;
    case Op::MIN: op = rcclMin; break;
    case Op::MAX: op = rcclMax; break;
    case Op::BAND: op = rcclBitAnd; break;
    case Op::BOR: op = rcclBitOr; break;
    case Op::BXOR: op = rcclBitXor; break;
    case Op::AVG:
      if (is_bool) refuse("booleans have no average");
      op = rcclAvg;
      break;
    case Op::PREMUL_SUM: {
      if (is_bool) refuse("booleans have no factor");
      auto* supplement = dynamic_cast<c10d::NCCLPreMulSumSupplement*>(by.supplement_.get());
      if (supplement == nullptr) refuse("it has no factor");
      Below guard;
      at::Tensor factor = supplement->tensor_factor.defined()
          ? supplement->tensor_factor.cpu().to(scalar).reshape({1})
          : at::full({1}, supplement->double_factor, at::kDouble).to(scalar);
      rccl_torch::check(
          rcclRedOpCreatePreMulSum(&op, factor.const_data_ptr(), type, rcclScalarHostImmediate, comm), call);
      created_ = comm;
      break;
    }
    default: refuse("there is no such operator");
  }
}

Reduction::~Reduction() {
  if (created_ != nullptr) rcclRedOpDestroy(op, created_);
}

void Buffers::check(const at::Tensor& tensor) const {
  auto refuse = [&](const std::string& what) {
    std::rethrow_exception(error(c10::str("rccl ", call_, ": ", what)));
  };
  if (!tensor.defined()) refuse("the tensor is undefined");
  if (!tensor.device().is_cpu()) {
    refuse(c10::str("works on tensors of the CPU, and this one is on ", tensor.device()));
  }
  if (tensor.layout() != at::kStrided) {
    refuse(c10::str("works on dense tensors (all_reduce's sum also on sparse ones), and this one is ", tensor.layout()));
  }
}

void Buffers::check(const std::vector<at::Tensor>& tensors) const {
  if (tensors.empty()) std::rethrow_exception(error(c10::str("rccl ", call_, ": a list without tensors")));
  for (const at::Tensor& tensor : tensors) {
    check(tensor);
    if (tensor.scalar_type() != tensors[0].scalar_type()) {
      std::rethrow_exception(error(c10::str(
          "rccl ", call_, ": tensors of one type are needed, and a list has ", tensors[0].scalar_type(), " and ",
          tensor.scalar_type())));
    }
  }
}

at::Tensor Buffers::keep(at::Tensor tensor) {
  kept_.push_back(tensor);
  return tensor;
}

at::Tensor Buffers::input(const at::Tensor& tensor) {
  check(tensor);
  if (is_plain(tensor)) return keep(tensor);
  Below guard;
  return keep(tensor.resolve_conj().resolve_neg().contiguous());
}

at::Tensor Buffers::output(const at::Tensor& tensor) {
  check(tensor);
  if (is_plain(tensor)) return keep(tensor);
  Below guard;
  at::Tensor copy = at::empty(tensor.sizes(), at::TensorOptions().dtype(tensor.scalar_type()));
  back_.emplace_back(copy, tensor);
  return keep(copy);
}

at::Tensor Buffers::both(const at::Tensor& tensor) {
  at::Tensor found = output(tensor);
  if (!found.is_same(tensor)) {
    Below guard;
    found.copy_(tensor);
  }
  return found;
}

at::Tensor Buffers::inputs(const std::vector<at::Tensor>& tensors) {
  return in_line(tensors, [](at::Tensor part, const at::Tensor& tensor) { part.copy_(tensor); });
}

at::Tensor Buffers::outputs(const std::vector<at::Tensor>& tensors) {
  return in_line(tensors, [this](at::Tensor part, const at::Tensor& tensor) { back_.emplace_back(part, tensor); });
}

// What holds all of them: their own memory where they lie one behind the other, else a copy, of whose parts each is shown to `meet`.
template <class Meet>
at::Tensor Buffers::in_line(const std::vector<at::Tensor>& tensors, Meet meet) {
  check(tensors);
  for (const at::Tensor& tensor : tensors) keep(tensor);
  if (const at::Tensor* first = first_of_adjacent(tensors)) return *first;
  Below guard;
  at::Tensor flat = flat_like(tensors);
  int64_t at = 0;
  for (const at::Tensor& tensor : tensors) {
    meet(flat.narrow(0, at, tensor.numel()).view(tensor.sizes()), tensor);
    at += tensor.numel();
  }
  return keep(flat);
}

void Buffers::copy_back() {
  Below guard;
  for (auto& [from, to] : back_) to.copy_(from);
  back_.clear();
}

} // namespace rccl_torch
