// Encodes and decodes texts for tokenizer_parity.py, which compares with PyPI tokenizers.
//
//   text_tokenize_lines TOKENIZER_JSON plain|recognize|decode TEXTS IDS
//
// TEXTS: for each text its length (uint32, little-endian) and its bytes. IDS: for each text the
// number of ids (uint32), the ids (int32), the length of what they decode to with special tokens
// left out, and that text. With "decode" each of TEXTS is a list of int32 ids, which are not
// encoded first. Prints the bytes and processor seconds of all Encode calls.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"

namespace {

void AppendInteger(uint32_t value, std::string* output) {
  output->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::vector<std::string> ReadTexts(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string> texts;
  for (size_t at = 0; at + sizeof(uint32_t) <= bytes.size();) {
    uint32_t length = 0;
    std::memcpy(&length, bytes.data() + at, sizeof(length));
    texts.push_back(bytes.substr(at + sizeof(length), length));
    at += sizeof(length) + length;
  }
  return texts;
}

std::vector<int32_t> ReadIds(const std::string& bytes) {
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  return ids;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: %s TOKENIZER_JSON plain|recognize|decode TEXTS IDS\n", argv[0]);
    return 2;
  }
  const auto tokenizer = chorus::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  const auto special = std::strcmp(argv[2], "plain") == 0 ? chorus::SpecialTokens::kPlainText
                                                          : chorus::SpecialTokens::kRecognize;
  const bool is_decoding = std::strcmp(argv[2], "decode") == 0;
  const std::vector<std::string> texts = ReadTexts(argv[3]);
  std::vector<std::vector<int32_t>> ids;
  ids.reserve(texts.size());
  size_t num_bytes = 0;
  const std::clock_t start = std::clock();  // the machine may be shared: processor time
  for (const std::string& text : texts) {
    ids.push_back(is_decoding ? ReadIds(text) : (*tokenizer)->Encode(text, special));
    num_bytes += text.size();
  }
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  std::string output;
  for (const std::vector<int32_t>& text_ids : ids) {
    AppendInteger(static_cast<uint32_t>(text_ids.size()), &output);
    for (const int32_t id : text_ids) AppendInteger(static_cast<uint32_t>(id), &output);
    const std::string decoded = (*tokenizer)->Decode(text_ids, /*skip_special_tokens=*/true);
    AppendInteger(static_cast<uint32_t>(decoded.size()), &output);
    output += decoded;
  }
  std::ofstream(argv[4], std::ios::binary) << output;
  std::printf("%zu %.6f\n", num_bytes, seconds);
  return 0;
}
