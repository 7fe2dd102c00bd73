// Tensors as the library's calls want them: elements of its types, one behind the other.
#pragma once

#include <ATen/ATen.h>
#include <roceccl.h>
#include <torch/csrc/distributed/c10d/Types.hpp>

#include <utility>
#include <vector>

namespace rccl_torch {

// How tensors of a type are moved: each element is `per` elements of the library's type.
struct Elements {
  rcclDataType_t type;
  size_t per;

  explicit Elements(at::ScalarType type);
  size_t count(const at::Tensor& tensor) const {
    return static_cast<size_t>(tensor.numel()) * per;
  }
};

// How tensors of a type are reduced. Booleans are bytes, 0 or 1, with logical operators; the sum of complex numbers is that of
// their parts.
struct Reduction {
  rcclDataType_t type;
  size_t per = 1;
  rcclRedOp_t op;

  // Throws if there is no such operator for the type.
  Reduction(const c10d::ReduceOp& op, at::ScalarType type, rcclComm_t comm, const char* call);
  ~Reduction();
  Reduction(const Reduction&) = delete;
  Reduction& operator=(const Reduction&) = delete;

  size_t count(const at::Tensor& tensor) const {
    return static_cast<size_t>(tensor.numel()) * per;
  }

 private:
  rcclComm_t created_ = nullptr;
};

// What a call works on: its tensors where they are contiguous, else copies, of which results are copied back.
class Buffers {
 public:
  explicit Buffers(const char* call) : call_(call) {}

  at::Tensor input(const at::Tensor& tensor);
  // What is in it does not matter.
  at::Tensor output(const at::Tensor& tensor);
  // Of a call in place.
  at::Tensor both(const at::Tensor& tensor);
  // All tensors' elements one behind the other.
  at::Tensor inputs(const std::vector<at::Tensor>& tensors);
  at::Tensor outputs(const std::vector<at::Tensor>& tensors);

  bool copies_back() const {
    return !back_.empty();
  }
  void copy_back();

 private:
  const char* call_;
  std::vector<at::Tensor> kept_;
  // From, to.
  std::vector<std::pair<at::Tensor, at::Tensor>> back_;

  void check(const at::Tensor& tensor) const;
  void check(const std::vector<at::Tensor>& tensors) const;
  at::Tensor keep(at::Tensor tensor);
  template <class Meet>
  at::Tensor in_line(const std::vector<at::Tensor>& tensors, Meet meet);
};

} // namespace rccl_torch
