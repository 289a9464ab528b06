// The chorus-server program itself, as a process: exit codes, the one line that says what is wrong,
// the port file, signals. Its path is the first argument; it serves the tiny golden model.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "chorus/v1/inference.grpc.pb.h"

#include "core/base/check.h"

namespace chorus {

const char* server_path = nullptr;  // set by main before any test runs

namespace {

using testing::HasSubstr;

std::string ReadFile(const std::string& path) {
  std::ifstream stream(path);
  return std::string((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
}

// A running chorus-server; its output goes to files.
class Process {
 public:
  explicit Process(std::vector<std::string> arguments) {
    static int count = 0;
    base_ = absl::StrCat(testing::TempDir(), "server_process_test.", getpid(), ".", ++count);
    arguments.insert(arguments.begin(), server_path);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, 1, (base_ + ".out").c_str(), flags, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, (base_ + ".err").c_str(), flags, 0600);
    CHECK(posix_spawn(&pid_, server_path, &actions, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Process() {
    if (pid_ != 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
    std::remove((base_ + ".out").c_str());
    std::remove((base_ + ".err").c_str());
  }

  // The exit code, or 128 + the signal that ended it.
  int Wait() {
    if (pid_ != 0) {
      CHECK(waitpid(pid_, &status_, 0) == pid_);
      pid_ = 0;
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  bool IsRunning() {
    if (pid_ != 0 && waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = 0;
    return pid_ != 0;
  }
  void Signal(int signal) { kill(pid_, signal); }
  std::string Output() const { return ReadFile(base_ + ".out"); }
  std::string Errors() const { return ReadFile(base_ + ".err"); }

 private:
  std::string base_;
  pid_t pid_ = 0;  // 0 once it has ended
  int status_ = 0;
};

struct ServingProcess {
  explicit ServingProcess(std::vector<std::string> more = {}) {
    static int count = 0;
    port_file =
        absl::StrCat(testing::TempDir(), "server_process_test.", getpid(), ".ports.", ++count);
    std::vector<std::string> arguments = {"--model=tests/golden/models/tiny_mha",
                                          "--listen=127.0.0.1:0",
                                          "--metrics_listen=127.0.0.1:0",
                                          "--threads=1",
                                          "--kv_cache_bytes=1MiB",
                                          "--port_file=" + port_file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    process = std::make_unique<Process>(arguments);
    while (ReadFile(port_file).empty() && process->IsRunning()) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    const auto json = nlohmann::json::parse(ReadFile(port_file), nullptr, false);
    if (json.is_discarded()) return;
    grpc_port = json["grpc"];
    metrics_port = json["metrics"];
  }
  ~ServingProcess() { std::remove(port_file.c_str()); }

  std::string port_file;
  std::unique_ptr<Process> process;
  int grpc_port = 0;
  int metrics_port = 0;
};

v1::GenerateRequest Question(int max_new_tokens) {
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_text()->set_question("Who?");
  request.mutable_prompt()->mutable_text()->add_paraphrases("Which one is it?");
  request.mutable_stopping()->set_max_new_tokens(max_new_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

TEST(ServerProcessTest, HelpAndVersionExitWithZero) {
  Process help({"--help"});
  EXPECT_EQ(help.Wait(), 0);
  EXPECT_THAT(help.Output(), HasSubstr("--model=DIR"));
  Process version({"--version"});
  EXPECT_EQ(version.Wait(), 0);
  EXPECT_THAT(version.Output(), HasSubstr("chorus-server "));
}

TEST(ServerProcessTest, BadFlagsAndModelsExitWithTwoAndOneLine) {
  const struct {
    std::vector<std::string> arguments;
    std::string message;
  } kCases[] = {{{}, "--model"},
                {{"--nonsense=1"}, "--nonsense is not a flag"},
                {{"--model=no/such/directory", "--log_level=off"}, "no/such/directory"},
                {{"--model=tests/server", "--log_level=off"}, "tests/server"},
                // Whatever this machine has: not that many GPUs.
                {{"--model=m", "--devices=cuda:63"}, "cuda:63"}};
  for (const auto& entry : kCases) {
    Process process(entry.arguments);
    EXPECT_EQ(process.Wait(), 2) << entry.message;
    const std::string errors = process.Errors();
    EXPECT_THAT(errors, HasSubstr(entry.message));
    EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
  }
}

TEST(ServerProcessTest, ServesTheTinyModelAndDrainsOnSigterm) {
  ServingProcess server({"--log_format=json"});
  ASSERT_GT(server.grpc_port, 0) << server.process->Errors();
  EXPECT_GT(server.metrics_port, 0);
  const auto stub = v1::Inference::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", server.grpc_port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, Question(100));
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_TRUE(event.has_prompt_info());
  server.process->Signal(SIGTERM);  // in the midst of the stream
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(event.finish().token_ids_size(), 100);
  EXPECT_EQ(server.process->Wait(), 0);
}

TEST(ServerProcessTest, SecondSignalEndsADrainThatASlowReaderHolds) {
  ServingProcess server({"--drain_timeout=1h", "--stream_buffer_events=4"});
  ASSERT_GT(server.grpc_port, 0) << server.process->Errors();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // windows stay at 64 KiB: half of the answer
  const auto stub = v1::Inference::NewStub(grpc::CreateCustomChannel(
      absl::StrCat("127.0.0.1:", server.grpc_port), grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  v1::GenerateRequest request = Question(400);
  request.mutable_response()->set_top_logprobs(20);
  const auto reader = stub->Generate(&context, request);
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  server.process->Signal(SIGTERM);
  while (server.process->Errors().find("draining") == std::string::npos) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_TRUE(server.process->IsRunning());
  server.process->Signal(SIGTERM);
  EXPECT_EQ(server.process->Wait(), 1);
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(ServerProcessTest, LogsOneJsonLineARequestWithoutItsText) {
  ServingProcess server({"--log_format=json"});
  ASSERT_GT(server.grpc_port, 0) << server.process->Errors();
  {
    const auto stub = v1::Inference::NewStub(grpc::CreateChannel(
        absl::StrCat("127.0.0.1:", server.grpc_port), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::GenerateRequest request = Question(3);
    request.set_request_id("find-me");
    const auto reader = stub->Generate(&context, request);
    v1::GenerateResponse event;
    while (reader->Read(&event)) {
    }
    ASSERT_TRUE(reader->Finish().ok());
  }
  server.process->Signal(SIGINT);
  EXPECT_EQ(server.process->Wait(), 0);
  const std::string log = server.process->Errors();
  EXPECT_THAT(log, testing::Not(HasSubstr("Which one")));
  std::istringstream lines(log);
  int num_requests = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    ASSERT_FALSE(json.is_discarded()) << line;
    if (json["event"] != "request") continue;
    ++num_requests;
    EXPECT_EQ(json["request_id"], "find-me");
    EXPECT_EQ(json["outcome"], "OK");
    EXPECT_EQ(json["prompts"], 2);
    EXPECT_EQ(json["generated_tokens"], 3);
  }
  EXPECT_EQ(num_requests, 1);
}

TEST(ServerProcessTest, BusyPortExitsWithOne) {
  ServingProcess first;
  ASSERT_GT(first.grpc_port, 0) << first.process->Errors();
  ServingProcess second({absl::StrCat("--listen=127.0.0.1:", first.grpc_port), "--log_level=off"});
  EXPECT_EQ(second.process->Wait(), 1);
  const std::string errors = second.process->Errors();
  EXPECT_THAT(errors, HasSubstr("in use"));
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (argc != 2) {
    std::fprintf(stderr, "usage: server_process_test PATH_OF_CHORUS_SERVER\n");
    return 2;
  }
  chorus::server_path = argv[1];
  return RUN_ALL_TESTS();
}
