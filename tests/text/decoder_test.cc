#include "core/text/decoder.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Decoder> Parse(const std::string& json) {
  const auto document = JsonNode::ParseDocument(json, "x");
  return Decoder::Parse(JsonNode(&*document, "decoder"));
}

std::string Decode(const std::string& json, std::vector<std::string> tokens) {
  const auto decoder = Parse(json);
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  if (!decoder.ok()) return "";
  for (const auto& stage : decoder->Start()) {
    std::vector<std::string> output;
    for (const std::string& token : tokens) stage->Push(token, &output);
    stage->Flush(&output);
    tokens = std::move(output);
  }
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

constexpr char kLlama2[] = R"({"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";

TEST(DecoderTest, ByteLevelJoinsBytesAcrossTokens) {
  const std::string json = R"({"type": "ByteLevel"})";
  EXPECT_EQ(Decode(json, {"\u0120a", "\u00C3", "\u00A9"}), " a\u00E9");
  EXPECT_EQ(Decode(json, {"\u00C3", "a"}), "\uFFFDa");
  EXPECT_EQ(Decode(json, {"\u4E2D", "\u0120"}), "\u4E2D ");  // not of the alphabet: its own bytes
}

TEST(DecoderTest, LlamaTwosSequenceStripsOneSpaceAndReadsBytes) {
  EXPECT_EQ(Decode(kLlama2, {"_Hello", "_w", "<0xC3>", "<0xA9>"}), "Hello w\u00E9");
  EXPECT_EQ(Decode(kLlama2, {"__a"}), " a");
  EXPECT_EQ(Decode(kLlama2, {"<0xC3>", "<0xA9>", "<0xC3>", "a"}), "\uFFFD\uFFFD\uFFFDa");
  EXPECT_EQ(Decode(kLlama2, {"<0x+A>", "<0xg1>"}), "\n<0xg1>");
  EXPECT_EQ(Decode(kLlama2, {}), "");
}

TEST(DecoderTest, StripWorksOnTokensBeforeAndOnTheTextBehindFuse) {
  EXPECT_EQ(
      Decode(R"({"type": "Strip", "content": "x", "start": 1, "stop": 1})", {"xxaxx", "x", "xb"}),
      "xaxb");
  EXPECT_EQ(Decode(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                       {"type": "Strip", "content": "x", "start": 2, "stop": 2}]})",
                   {"x", "xx", "a", "x", "b", "x", "x", "x"}),
            "xaxbx");
}

TEST(DecoderTest, MetaspaceDropsTheFirstTokensSymbol) {
  EXPECT_EQ(Decode(R"({"type": "Metaspace", "replacement": "_"})", {"_a", "_b"}), "a b");
  EXPECT_EQ(Decode(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "never"})",
                   {"_a", "_b"}),
            " a b");
}

TEST(DecoderTest, WithoutADecoderTokensAreJoinedBySpaces) {
  EXPECT_EQ(Decode("null", {"a", "b"}), "a b");
}

TEST(DecoderTest, UnknownAndUnstreamableDecodersAreRefusedWithTheirPath) {
  for (
      const auto& [json, message] : std::vector<std::pair<std::string, std::string>>{
          {R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "CTC"}]})",
           "decoder.decoders[1]: unknown type 'CTC'"},
          {R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}]})",
           "decoder.decoders[1]: a Replace behind"},
          {R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "ByteFallback"}]})",
           "decoder.decoders[1]: must not stand behind"},
          {R"({"type": "Strip", "content": "ab", "start": 1, "stop": 0})",
           "decoder.content: must be one character"},
          {R"({"type": "Strip", "content": "a", "start": -1, "stop": 0})",
           "decoder.start: is -1"}}) {
    const auto status = Parse(json).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace chorus
