#include <pybind11/chrono.h>
#include <torch/csrc/utils/pybind.h>

#include "backend.h"

// The type c10d::Backend is known to Python from torch.
PYBIND11_MODULE(RCCL_TORCH_MODULE, module) {
  pybind11::module_::import("torch._C._distributed_c10d");
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 14
  // Where gloo is no plugin, torch writes to attributes of gloo's class.
  pybind11::class_<rccl_torch::Backend, c10d::Backend, c10::intrusive_ptr<rccl_torch::Backend>>(
      module, "Backend", pybind11::dynamic_attr());
#endif
  module.def(
      "create",
      [](const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, std::chrono::milliseconds timeout,
         std::string label) -> c10::intrusive_ptr<c10d::Backend> {
        return c10::make_intrusive<rccl_torch::Backend>(store, rank, size, timeout, std::move(label));
      },
      pybind11::arg("store"), pybind11::arg("rank"), pybind11::arg("size"), pybind11::arg("timeout"),
      pybind11::arg("label"), pybind11::call_guard<pybind11::gil_scoped_release>());
  module.def(
      "abort_all", [](const std::string& why) { rccl_torch::Backend::abort_all(why.c_str()); }, pybind11::arg("why"),
      pybind11::call_guard<pybind11::gil_scoped_release>());
}
