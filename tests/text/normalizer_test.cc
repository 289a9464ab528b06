#include "core/text/normalizer.h"

#include <string>

#include <gtest/gtest.h>

namespace chorus {
namespace {

std::string Apply(const std::string& json, std::string text) {
  const auto document = JsonNode::ParseDocument(json, "x");
  const auto normalizer = Normalizer::Parse(JsonNode(&*document, "normalizer"));
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  if (normalizer.ok()) normalizer->Apply(&text);
  return text;
}

std::string ErrorOf(const std::string& json) {
  const auto document = JsonNode::ParseDocument(json, "x");
  return std::string(Normalizer::Parse(JsonNode(&*document, "normalizer")).status().message());
}

TEST(NormalizerTest, TheFourFormsAreTakenFromUnicode9) {
  EXPECT_EQ(Apply(R"({"type": "NFC"})", "e\u0301"), "\u00E9");
  EXPECT_EQ(Apply(R"({"type": "NFD"})", "\u00E9"), "e\u0301");
  EXPECT_EQ(Apply(R"({"type": "NFKC"})", "\uFB01\u00B2"), "fi2");
  EXPECT_EQ(Apply(R"({"type": "NFKD"})", "\uFF21\u00E9"), "Ae\u0301");
  EXPECT_EQ(Apply(R"({"type": "NFKC"})", "\u32FF"), "\u32FF");  // REIWA is of Unicode 12.1
}

TEST(NormalizerTest, LlamaTwosSequencePrependsAndReplaces) {
  const std::string json = R"({"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "_"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]})";
  EXPECT_EQ(Apply(json, "a b"), "_a_b");
  EXPECT_EQ(Apply(json, ""), "");
}

TEST(NormalizerTest, StripRemovesUnicodeWhiteSpace) {
  const std::string both = R"({"type": "Strip", "strip_left": true, "strip_right": true})";
  const std::string left = R"({"type": "Strip", "strip_left": true, "strip_right": false})";
  const std::string right = R"({"type": "Strip", "strip_left": false, "strip_right": true})";
  EXPECT_EQ(Apply(both, "\u3000 a b\n"), "a b");
  EXPECT_EQ(Apply(left, " a "), "a ");
  EXPECT_EQ(Apply(right, " a "), " a");
  EXPECT_EQ(Apply(both, "  "), "");
  EXPECT_EQ(Apply(left, "  "), "");
  EXPECT_EQ(Apply(right, ""), "");
}

TEST(NormalizerTest, LowercaseKnowsNoContext) {
  EXPECT_EQ(Apply(R"({"type": "Lowercase"})", "\u0130\u03A3A\u00C9"), "i\u0307\u03C3a\u00E9");
}

TEST(NormalizerTest, UnknownTypesAreRefusedByNameAndPath) {
  EXPECT_EQ(ErrorOf(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Foo"}]})"),
            "normalizer.normalizers[1]: unknown type 'Foo'");
  EXPECT_EQ(ErrorOf(R"({"type": "Sequence"})"), "normalizer.normalizers: must be a list");
  EXPECT_EQ(ErrorOf("[]"), "normalizer.type: must be a string");
  EXPECT_EQ(ErrorOf(R"({"type": "Prepend"})"), "normalizer.prepend: must be a string");
}

TEST(NormalizerTest, DeepNestingIsRefused) {
  std::string json = R"({"type": "NFC"})";
  for (int i = 0; i < 5000; ++i) json = R"({"type":"Sequence","normalizers":[)" + json + "]}";
  EXPECT_NE(ErrorOf(json).find("nested too deeply"), std::string::npos);
}

TEST(NormalizerTest, NullIsTheIdentity) {
  EXPECT_TRUE(Normalizer::Parse(JsonNode(nullptr, "normalizer"))->IsIdentity());
}

}  // namespace
}  // namespace chorus
