// What can be seen of a TokenStream before gRPC takes it: it then buffers its first write, so every
// further event waits. Streams under real gRPC are in server_test.cc.
#include "server/token_stream.h"

#include <gtest/gtest.h>

#include "tests/server/server_test_support.h"

namespace chorus {
namespace {

struct Fixture {
  explicit Fixture(int32_t max_buffered_events) {
    TokenStream::Options options;
    options.tokenizer = &TinyTokenizer();
    options.max_buffered_events = max_buffered_events;
    options.on_end = [this](const StreamEnd& end) { ends.push_back(end.status); };
    options.on_done = [this] { ++num_done; };
    stream = TokenStream::Create(std::move(options));
  }

  std::vector<absl::Status> ends;
  int num_done = 0;
  std::shared_ptr<TokenStream> stream;
};

TEST(TokenStreamTest, WantsNoMoreWhileTheBufferIsFull) {
  Fixture fixture(3);
  fixture.stream->OnStart(PromptSummary());  // goes to gRPC at once
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(fixture.stream->WantsMore()) << i;
    fixture.stream->OnToken(TokenEvent());
  }
  EXPECT_FALSE(fixture.stream->WantsMore());
  fixture.stream->OnCancel();
  EXPECT_TRUE(fixture.stream->WantsMore()) << "an abandoned stream must not pause the engine";
  fixture.stream->OnDone();
}

TEST(TokenStreamTest, MergedTokensCountOneEachAgainstTheBuffer) {
  Fixture fixture(4);
  fixture.stream->OnStart(PromptSummary());  // goes to gRPC at once
  TokenEvent event;
  event.token_ids = {1, 2, 3};
  fixture.stream->OnToken(event);
  EXPECT_TRUE(fixture.stream->WantsMore());
  fixture.stream->OnToken(TokenEvent());
  EXPECT_FALSE(fixture.stream->WantsMore());
  fixture.stream->OnWriteDone(true);  // takes all four as one message
  EXPECT_TRUE(fixture.stream->WantsMore());
  fixture.stream->OnCancel();
  fixture.stream->OnFinish(absl::CancelledError(""), FinishSummary());
  fixture.stream->OnDone();
}

TEST(TokenStreamTest, LivesUntilBothGrpcAndTheEngineHaveLetGo) {
  Fixture fixture(3);
  std::weak_ptr<TokenStream> watch = fixture.stream;
  fixture.stream->OnStart(PromptSummary());
  fixture.stream->OnCancel();
  fixture.stream->OnDone();
  EXPECT_EQ(fixture.num_done, 1);
  ASSERT_FALSE(watch.expired());
  fixture.stream->OnToken(TokenEvent());  // the engine may still be at it
  fixture.stream->OnFinish(absl::CancelledError(""), FinishSummary());
  EXPECT_EQ(fixture.ends.size(), 1u);
  fixture.stream.reset();
  EXPECT_TRUE(watch.expired());
}

TEST(TokenStreamTest, ARefusalEndsTheCallOnce) {
  Fixture fixture(3);
  fixture.stream->Reject(absl::UnavailableError("draining"));
  ASSERT_EQ(fixture.ends.size(), 1u);
  EXPECT_EQ(fixture.ends[0].code(), absl::StatusCode::kUnavailable);
  fixture.stream->OnDone();
}

}  // namespace
}  // namespace chorus
