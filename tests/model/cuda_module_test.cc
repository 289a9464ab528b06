#include "core/model/cuda_module.h"

#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;

std::string Message(const absl::StatusOr<CudaModule*>& module) {
  return std::string(module.status().message());
}

TEST(CudaModuleTest, IsLookedForBesideTheProgramsFolder) {
  EXPECT_THAT(CudaModulePath(""), EndsWith("/lib/libchorus_cuda.so"));
  EXPECT_EQ(CudaModulePath("some/file.so"), "some/file.so");
}

TEST(CudaModuleTest, AMissingFileIsNamedWithTheWaysToGetIt) {
  const auto module = OpenCudaModule("no/such/libchorus_cuda.so");
  EXPECT_EQ(module.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(module), AllOf(HasSubstr("no/such/libchorus_cuda.so"),
                                     HasSubstr("CHORUS_CUDA=1"), HasSubstr("chorus:cuda")));
}

TEST(CudaModuleTest, WhatTheLoaderSaysIsPassedOn) {
  const std::string path = testing::TempDir() + "cuda_module_test.so";
  std::ofstream(path) << "no library";
  const auto module = OpenCudaModule(path);
  EXPECT_EQ(module.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(module), AllOf(HasSubstr(path), HasSubstr("file too short"),
                                     HasSubstr("pip install torch")));
}

TEST(CudaModuleTest, AnotherLibraryIsRefused) {
  const auto module = OpenCudaModule(CHORUS_OTHER_LIBRARY);
  EXPECT_EQ(module.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(module), HasSubstr("has no chorus_cuda_module"));
}

TEST(CudaModuleTest, AnotherBuildIsRefused) {
  const auto module = OpenCudaModule(CHORUS_STALE_CUDA_MODULE);
  EXPECT_EQ(module.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(module), HasSubstr("not of this server's build"));
}

}  // namespace
}  // namespace chorus
