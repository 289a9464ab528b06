// Runs a fuzz target once over every file of the folders and files named on the command line, so
// that what fuzzing has found stays covered in builds without libFuzzer.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

int RunFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  int num_files = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
        if (entry.is_regular_file()) num_files += RunFile(entry.path());
      }
    } else if (std::filesystem::exists(argv[i])) {
      num_files += RunFile(argv[i]);
    }
  }
  std::printf("%d corpus files ran\n", num_files);
  return num_files > 0 ? 0 : 1;  // an empty corpus is a mistake, not a success
}
