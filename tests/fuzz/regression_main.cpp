// Runs a fuzz target without libFuzzer: over every file of the folders named on the command line (one that does not
// exist holds no finds yet), then over inputs from a fixed seed, so that the target is exercised before its first find.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr int kGeneratedInputs = 500;
constexpr std::size_t kLongestGeneratedInput = 4096;

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(folder)) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::uint8_t> read(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// The input being run lies in `reproducer`, which a crash leaves behind for regressions/.
void run_generated(const std::filesystem::path& reproducer) {
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same inputs in every run
  for (int round = 0; round < kGeneratedInputs; ++round) {
    std::vector<std::uint8_t> input(random() % (kLongestGeneratedInput + 1));
    std::generate(input.begin(), input.end(), [&] { return static_cast<std::uint8_t>(random() & 0xFFU); });
    std::ofstream(reproducer, std::ios::binary)
        .write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::filesystem::remove(reproducer);
}

}  // namespace

int main(int argc, char** argv) {
  int files = 0;
  for (const char* folder : std::span(argv, static_cast<std::size_t>(argc)).subspan(1)) {
    for (const auto& file : files_in(folder)) {
      std::printf("%s\n", file.c_str());
      std::fflush(stdout);  // a crash in the next line must not swallow the name
      const std::vector<std::uint8_t> input = read(file);
      LLVMFuzzerTestOneInput(input.data(), input.size());
      ++files;
    }
  }
  LLVMFuzzerTestOneInput(nullptr, 0);
  const std::filesystem::path reproducer = std::filesystem::path(argv[0]).filename() += ".failed-input";
  std::printf("Generated inputs; one that fails stays in %s\n", std::filesystem::absolute(reproducer).c_str());
  std::fflush(stdout);
  run_generated(reproducer);
  std::printf("%d regression files, 1 empty and %d generated inputs passed\n", files, kGeneratedInputs);
}
