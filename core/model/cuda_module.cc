#include "core/model/cuda_module.h"

#include <filesystem>
#include <system_error>

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

constexpr char kFileName[] = "libchorus_cuda.so";

absl::Status LoadError(const std::string& path) {
  const char* const error = dlerror();
  return absl::FailedPreconditionError(absl::StrCat(
      "cannot load ", path, ": ", error == nullptr ? "unknown error" : error,
      ": LibTorch's CUDA libraries belong beside it (pip install torch==2.11.0, with its "
      "dependencies; CHORUS_CUDA=1 scripts/setup.sh does that), or use the image chorus:cuda"));
}

}  // namespace

std::string CudaModulePath(const std::string& path) {
  if (!path.empty()) return path;
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  return program.parent_path().parent_path() / "lib" / kFileName;
}

bool HasNvidiaDriver() {
  void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) return false;
  dlclose(driver);
  return true;
}

absl::StatusOr<CudaModule*> OpenCudaModule(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat(
        "there is no ", path, ": this server was built without the CUDA side; build it with "
        "CHORUS_CUDA=1 (nvcc is needed, no GPU), use the image chorus:cuda, or name the file in "
        "CHORUS_CUDA_MODULE"));
  }
  // Its symbols stay its own (RTLD_LOCAL): both sides hold copies of some libraries of Chorus.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return LoadError(path);
  const auto function = reinterpret_cast<CudaModuleFunction>(dlsym(library, kCudaModuleFunction));
  if (function == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has no ", kCudaModuleFunction, ": it is not the CUDA side of Chorus"));
  }
  const CudaModuleEntry entry = function();
  if (entry.interface != kCudaModuleInterface) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " is not of this server's build: build and install both together"));
  }
  return entry.module;
}

}  // namespace chorus
