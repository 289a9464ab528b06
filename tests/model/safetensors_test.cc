#include "core/model/safetensors.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/model/safetensors_builder.h"

namespace chorus {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<std::map<std::string, TensorEntry>> Parse(const std::string& bytes) {
  return ParseSafetensorsHeader(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
                                "x.safetensors");
}

std::vector<float> Row(const TensorRows& rows, int64_t row) {
  std::vector<float> out(rows.num_columns());
  rows.ReadRow(row, out.data());
  return out;
}

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

TEST(SafetensorsTest, ReadsRowsOfASingleFile) {
  const TestFolder folder("single");
  SafetensorsBuilder builder;
  builder.Add("matrix", {2, 3}, {1, 2, 3, 4, 5, 6});
  builder.Add("vector", {3}, {7, 8, 9});
  WriteFile(folder.File("model.safetensors"), builder.Bytes());
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  const auto matrix = (*reader)->Find("matrix", 2, 3);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_THAT(Row(*matrix, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(Row(*matrix, 1), ElementsAre(4, 5, 6));
  matrix->Release();
  EXPECT_THAT(Row(*matrix, 1), ElementsAre(4, 5, 6));
  const auto vector = (*reader)->Find("vector", 0, 3);
  ASSERT_TRUE(vector.ok()) << vector.status();
  EXPECT_EQ(vector->num_rows(), 1);
  EXPECT_THAT(Row(*vector, 0), ElementsAre(7, 8, 9));
}

TEST(SafetensorsTest, ConvertsEveryFloatingType) {
  const TestFolder folder("types");
  SafetensorsBuilder builder;
  builder.AddRaw("f64", "F64", {2}, BytesOf<double>({1.5, 1.0 / 3.0}));
  builder.AddRaw("bf16", "BF16", {3}, BytesOf<uint16_t>({0x3f80, 0xc000, 0x7f80}));
  // 1, -2, smallest subnormal, largest subnormal, largest, infinity, -0, 1/3 rounded.
  builder.AddRaw(
      "f16", "F16", {8},
      BytesOf<uint16_t>({0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0x8000, 0x3555}));
  WriteFile(folder.File("model.safetensors"), builder.Bytes());
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(Row(*(*reader)->Find("f64", 0, 2), 0), ElementsAre(1.5f, 1.0f / 3.0f));
  EXPECT_THAT(Row(*(*reader)->Find("bf16", 0, 3), 0), ElementsAre(1.0f, -2.0f, infinity));
  const std::vector<float> half = Row(*(*reader)->Find("f16", 0, 8), 0);
  EXPECT_THAT(half, ElementsAre(1.0f, -2.0f, 0x1p-24f, 1023 * 0x1p-24f, 65504.0f, infinity, 0.0f,
                                0.333251953125f));
  EXPECT_TRUE(std::signbit(half[6]));
}

TEST(SafetensorsTest, NamesATypeThatCannotBeRead) {
  const TestFolder folder("integers");
  SafetensorsBuilder builder;
  builder.AddRaw("ids", "I32", {2}, std::string(8, '\0'));
  builder.AddRaw("odd", "Q4_1", {7}, "abc");
  WriteFile(folder.File("model.safetensors"), builder.Bytes());
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT(std::string((*reader)->Find("ids", 0, 2).status().message()),
              AllOf(HasSubstr("'ids'"), HasSubstr("I32")));
  EXPECT_THAT(std::string((*reader)->Find("odd", 0, 7).status().message()), HasSubstr("Q4_1"));
}

TEST(SafetensorsTest, SaysWhichShapeIsWrongOrMissing) {
  const TestFolder folder("shapes");
  SafetensorsBuilder builder;
  builder.Add("w", {2, 3}, std::vector<float>(6));
  WriteFile(folder.File("model.safetensors"), builder.Bytes());
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  const absl::Status wrong = (*reader)->Find("w", 3, 2).status();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.message()), AllOf(HasSubstr("model.safetensors"), HasSubstr("'w'"),
                                                  HasSubstr("[2, 3]"), HasSubstr("[3, 2]")));
  EXPECT_FALSE((*reader)->Find("w", 0, 6).ok());
  const absl::Status missing = (*reader)->Find("v", 3, 2).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("'v'"), HasSubstr("[3, 2]")));
}

TEST(SafetensorsTest, ReadsShardsThroughTheIndex) {
  const TestFolder folder("shards");
  SafetensorsBuilder first, second;
  first.Add("a", {2}, {1, 2});
  first.Add("b", {1}, {3});
  second.Add("c", {2}, {4, 5});
  WriteFile(folder.File("model-00001-of-00002.safetensors"), first.Bytes());
  WriteFile(folder.File("model-00002-of-00002.safetensors"), second.Bytes());
  WriteFile(folder.File("model.safetensors.index.json"), R"({"metadata": {"total_size": 20},
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
                   "c": "model-00002-of-00002.safetensors"}})");
  const auto reader = SafetensorsReader::Open(folder.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT(Row(*(*reader)->Find("a", 0, 2), 0), ElementsAre(1, 2));
  EXPECT_THAT(Row(*(*reader)->Find("b", 0, 1), 0), ElementsAre(3));
  EXPECT_THAT(Row(*(*reader)->Find("c", 0, 2), 0), ElementsAre(4, 5));
  EXPECT_FALSE((*reader)->Find("d", 0, 2).ok());
}

TEST(SafetensorsTest, RefusesAnIndexThatLeavesItsDirectory) {
  const TestFolder folder("escape");
  SafetensorsBuilder builder;
  builder.Add("a", {1}, {1});
  WriteFile(folder.File("outside.safetensors"), builder.Bytes());
  std::filesystem::create_directories(folder.File("model"));
  for (const std::string& target :
       {std::string("../outside.safetensors"), folder.File("outside.safetensors"),
        std::string(".."), std::string(""), std::string("sub/x.safetensors"),
        std::string("x\\\\y")}) {
    WriteFile(folder.File("model/model.safetensors.index.json"),
              R"({"weight_map": {"a": ")" + target + R"("}})");
    const auto reader = SafetensorsReader::Open(folder.File("model"));
    EXPECT_EQ(reader.status().code(), absl::StatusCode::kInvalidArgument) << target;
  }
}

TEST(SafetensorsTest, RefusesAnIndexThatIsNotTrue) {
  const TestFolder folder("index");
  SafetensorsBuilder builder;
  builder.Add("a", {1}, {1});
  WriteFile(folder.File("one.safetensors"), builder.Bytes());
  const std::string index = folder.File("model.safetensors.index.json");
  for (const char* text : {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {"a": 3}})",
                           R"({"weight_map": {"b": "one.safetensors"}})"}) {
    WriteFile(index, text);
    EXPECT_EQ(SafetensorsReader::Open(folder.path()).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
  WriteFile(index, R"({"weight_map": {"a": "two.safetensors"}})");
  EXPECT_EQ(SafetensorsReader::Open(folder.path()).status().code(), absl::StatusCode::kNotFound);
}

TEST(SafetensorsTest, RefusesFoldersPipesAndMissingFiles) {
  const TestFolder folder("folder");
  EXPECT_EQ(SafetensorsReader::Open(folder.path()).status().code(), absl::StatusCode::kNotFound);
  ASSERT_EQ(mkfifo(folder.File("model.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsReader::Open(folder.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
  std::filesystem::remove(folder.File("model.safetensors"));
  std::filesystem::create_directories(folder.File("model.safetensors"));
  EXPECT_EQ(SafetensorsReader::Open(folder.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Every start of a good file is refused, and none makes the reader read past its end.
TEST(SafetensorsTest, RefusesEveryTruncation) {
  SafetensorsBuilder builder;
  builder.Add("a", {3}, {1, 2, 3});
  builder.Add("b", {2, 2}, {1, 2, 3, 4});
  const std::string bytes = builder.Bytes();
  ASSERT_TRUE(Parse(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<char> exact(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(
        ParseSafetensorsHeader(reinterpret_cast<const uint8_t*>(exact.data()), exact.size(), "x")
            .ok())
        << size;
  }
  EXPECT_FALSE(Parse(bytes + "x").ok());
}

struct BadHeader {
  const char* name;
  std::string header;
  const char* said;
};

class SafetensorsHeaderTest : public testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsHeaderTest, RefusesItAndSaysWhy) {
  const auto tensors = Parse(SafetensorsBytes(GetParam().header, std::string(16, 'x')));
  ASSERT_FALSE(tensors.ok());
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tensors.status().message()),
              AllOf(HasSubstr("x.safetensors"), HasSubstr(GetParam().said)));
}

std::string OneTensor(const std::string& type, const std::string& shape,
                      const std::string& offsets) {
  return R"({"t": {"dtype": ")" + type + R"(", "shape": )" + shape + R"(, "data_offsets": )" +
         offsets + "}}";
}

INSTANTIATE_TEST_SUITE_P(
    All, SafetensorsHeaderTest,
    testing::Values(
        BadHeader{"Empty", "", "JSON"}, BadHeader{"Array", "[]", "JSON"},
        BadHeader{"CutOff", "{\"a\": ", "JSON"}, BadHeader{"EntryIsNumber", R"({"t": 3})", "'t'"},
        BadHeader{"NoShape", R"({"t": {"dtype": "F32", "data_offsets": [0, 16]}})", "needs"},
        BadHeader{"ThreeOffsets", OneTensor("F32", "[4]", "[0, 8, 16]"), "needs"},
        BadHeader{"Backwards", OneTensor("F32", "[4]", "[16, 0]"), "range"},
        BadHeader{"NegativeOffset", OneTensor("F32", "[4]", "[-16, 0]"), "range"},
        BadHeader{"HugeOffset", OneTensor("F32", "[4]", "[0, 18446744073709551615]"), "range"},
        BadHeader{"PastTheEnd", OneTensor("F32", "[8]", "[0, 32]"), "cut short"},
        BadHeader{"SizeMismatch", OneTensor("F32", "[3]", "[0, 16]"), "takes 12"},
        BadHeader{"NegativeShape", OneTensor("F32", "[-4]", "[0, 16]"), "counts"},
        BadHeader{"FractionalShape", OneTensor("F32", "[4.0]", "[0, 16]"), "counts"},
        BadHeader{"Overflow", OneTensor("F32", "[4611686018427387904, 4]", "[0, 16]"), "overflows"},
        BadHeader{"OverflowToTheRightSize", OneTensor("F32", "[4611686018427387905, 4]", "[0, 16]"),
                  "overflows"},
        BadHeader{"Hole", OneTensor("F32", "[2]", "[8, 16]"), "hole"},
        BadHeader{"Rest", OneTensor("F32", "[2]", "[0, 8]"), "after the last"},
        BadHeader{"Overlap",
                  R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                      "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
                  "overlaps"},
        BadHeader{"SamePlaceTwice",
                  R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                      "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
                  "overlaps"},
        BadHeader{"NameTwice",
                  R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                      "a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
                  "twice"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SafetensorsTest, RefusesAHeaderLongerThanTheFile) {
  std::string bytes = SafetensorsBytes("{}", "");
  for (const int byte : {0, 1, 3, 7}) {
    std::string longer = bytes;
    longer[byte] = '\x7f';
    EXPECT_FALSE(Parse(longer).ok()) << byte;
  }
  EXPECT_TRUE(Parse(bytes).ok());
}

TEST(SafetensorsTest, AcceptsEmptyTensorsAndScalars) {
  const auto tensors = Parse(SafetensorsBytes(
      R"({"none": {"dtype": "F32", "shape": [0, 5], "data_offsets": [0, 0]},
          "one": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]}}   )",
      std::string(8, '\0')));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->at("one").end - tensors->at("one").begin, 8u);
}

TEST(SafetensorsTest, ErrorsKeepHostileNamesOnOneLine) {
  const auto tensors =
      Parse(SafetensorsBytes(R"({"a\nb\u0000)" + std::string(1000, 'n') + R"(": 3})", ""));
  ASSERT_FALSE(tensors.ok());
  EXPECT_EQ(tensors.status().message().find('\n'), absl::string_view::npos);
  EXPECT_LT(tensors.status().message().size(), 300u);
}

}  // namespace
}  // namespace chorus
