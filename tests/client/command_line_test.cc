#include "client/command_line.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "tests/client/fake_service.h"
#include "tests/client/run_command.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<nlohmann::json> JsonLines(const std::string& text) {
  std::vector<nlohmann::json> objects;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  for (const std::string& line : lines) objects.push_back(nlohmann::json::parse(line));
  return objects;
}

class CommandLineTest : public ::testing::Test {
 protected:
  CommandLineTest() { service_.events = PlainAnswer({"Par", "is"}); }

  std::string Server() const { return absl::StrCat("--server=", service_.target()); }

  FakeService service_;
};

TEST_F(CommandLineTest, AskPrintsTheBareAnswerIntoAPipe) {
  const Outcome outcome = RunChorus({"ask", "Why?", "--paraphrase=How come?", Server()});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "Paris\n");
  EXPECT_EQ(outcome.err, "");
  ASSERT_EQ(service_.requests().size(), 1u);
  const v1::TextPrompt prompt = service_.requests()[0].prompt().text();
  EXPECT_EQ(prompt.question(), "Why?");
  EXPECT_THAT(prompt.paraphrases(), ElementsAre("How come?"));
}

TEST_F(CommandLineTest, TheServerMayStandBeforeTheCommand) {
  EXPECT_EQ(RunChorus({Server(), "ask", "Why?"}).out, "Paris\n");
  EXPECT_EQ(RunChorus({"--server", service_.target(), "ask", "Why?"}).out, "Paris\n");
}

TEST_F(CommandLineTest, AskByAllMethodsAsksEachOnceInTheContractsOrder) {
  const Outcome outcome = RunChorus({"ask", "Why?", "--method=all", Server()});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  std::vector<int> methods;
  for (const auto& request : service_.requests()) methods.push_back(request.fusion().method());
  EXPECT_THAT(methods, ElementsAre(1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(outcome.out, HasSubstr("attention\n  Paris\n  ended by eos; 2 tokens in 1.50 s"));
  EXPECT_THAT(outcome.out, HasSubstr("\nvote\n  Paris\n"));
}

TEST_F(CommandLineTest, AskJsonIsOneObjectALineForEachMethod) {
  const Outcome outcome =
      RunChorus({"ask", "Why?", "--method=attention", "--method=prob_max", "--json", Server()});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<nlohmann::json> objects = JsonLines(outcome.out);
  ASSERT_EQ(objects.size(), 2u);
  EXPECT_EQ(objects[0]["method"], "attention");
  EXPECT_EQ(objects[1]["method"], "prob_max");
  EXPECT_EQ(objects[0]["text"], "Paris");
  EXPECT_EQ(objects[0]["finish_reason"], "eos");
  EXPECT_EQ(objects[0]["prompt_info"]["request_id"], "r1");
  EXPECT_EQ(objects[0]["prompt_info"]["seed"], 18446744073709551615u);
  EXPECT_EQ(objects[0]["tokens"].size(), 2u);
}

TEST_F(CommandLineTest, AServersRefusalIsOneLineAndExitCodeOne) {
  service_.events.clear();
  service_.status = BadField("bad request", "sampling.top_p", "1.5 must be in (0, 1]");
  for (const char* json : {"--json=false", "--json"}) {
    const Outcome outcome = RunChorus({"ask", "Why?", json, Server()});
    EXPECT_EQ(outcome.code, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err,
              "chorus: bad request (sampling.top_p: 1.5 must be in (0, 1]) [INVALID_ARGUMENT]\n");
  }
}

TEST_F(CommandLineTest, AnAnswerThatBreaksOffEndsItsLineAndFails) {
  service_.events.pop_back();
  service_.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  const Outcome outcome = RunChorus({"ask", "Why?", Server()});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "Paris\n");
  EXPECT_EQ(outcome.err, "chorus: draining [UNAVAILABLE]\n");
}

TEST_F(CommandLineTest, TokenizePrintsIdsSpellingsOrJson) {
  EXPECT_EQ(RunChorus({"tokenize", "Hi", Server()}).out, "72 105\n");
  EXPECT_EQ(RunChorus({"tokenize", "-", Server()}, "Hi\n").out, "72 105 10\n");
  EXPECT_EQ(RunChorus({"tokenize", "<s>", "--special", Server()}).out, "256\n");
  EXPECT_EQ(RunChorus({"tokenize", "i\n", "--spellings", Server()}).out, "105\ti\n10\t\\n\n");
  EXPECT_EQ(RunChorus({"tokenize", "Hi", "--json", Server()}).out,
            "{\"token_ids\":[72,105],\"tokens\":[\"H\",\"i\"]}\n");
}

TEST_F(CommandLineTest, DetokenizeTakesIdsAsWordsOrWithCommas) {
  EXPECT_EQ(RunChorus({"detokenize", "72", "105", Server()}).out, "Hi\n");
  EXPECT_EQ(RunChorus({"detokenize", "72,105", "33", "--json", Server()}).out,
            "{\"text\":\"Hi!\"}\n");
  EXPECT_EQ(RunChorus({"detokenize", "256", "72", "--skip_special", Server()}).out, "H\n");
  const Outcome wrong = RunChorus({"detokenize", "72", "x", Server()});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_EQ(wrong.err, "chorus detokenize: 'x' is not a token id\n");
  EXPECT_EQ(RunChorus({"detokenize", "-1", Server()}).code, 1);
}

TEST_F(CommandLineTest, InfoPrintsTextOrJson) {
  EXPECT_THAT(RunChorus({"info", Server()}).out, HasSubstr("template     chatml"));
  const nlohmann::json info = nlohmann::json::parse(RunChorus({"info", "--json", Server()}).out);
  EXPECT_EQ(info["name"], "fake");
  EXPECT_EQ(info["vocab_size"], 257);
  EXPECT_EQ(info["bos_token_id"], nullptr);
  EXPECT_EQ(info["eos_token_ids"], nlohmann::json({2}));
}

// The fake server's health service knows the server as a whole only.
TEST_F(CommandLineTest, HealthSaysServingByItsExitCode) {
  const Outcome serving = RunChorus({"health", "--service=", Server()});
  EXPECT_EQ(serving.code, 0) << serving.err;
  EXPECT_EQ(serving.out, "SERVING\n");
  EXPECT_EQ(RunChorus({"health", "--service=", "--json", Server()}).out,
            "{\"status\":\"SERVING\"}\n");
  const Outcome unknown = RunChorus({"health", Server()});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_EQ(unknown.err,
            "chorus: the server has no service 'chorus.v1.Inference' [NOT_FOUND]\n");
}

TEST(CommandLineUsageTest, WithoutAServerTheLineSaysHowToStartOne) {
  std::string target;
  {
    const FakeService closed;
    target = closed.target();
  }
  const Outcome outcome = RunChorus({"info", absl::StrCat("--server=", target)});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, absl::StrCat("chorus: no server answers at ", target,
                                      "; start one with 'chorus-server --model=DIR', or name "
                                      "another with --server=HOST:PORT (--tls if it speaks "
                                      "TLS)\n"));
}

TEST(CommandLineUsageTest, WhatIsWrongWithTokensAndCertificatesIsOneLineAndExitCodeTwo) {
  const std::string empty = testing::TempDir() + "command_line_test.empty";
  std::ofstream(empty) << "# no token\n\n";
  const std::string token = testing::TempDir() + "command_line_test.token";
  std::ofstream(token) << "# mine\n  token-0123456789 \nanother-0123456789\n";
  const struct {
    std::vector<std::string> flags;
    std::string message;
  } kCases[] = {{{"--token_file=" + empty}, "holds no token"},
                {{"--token_file=no/such/file"}, "--token_file=no/such/file cannot be read"},
                {{"--token_file=" + token, "--server=198.51.100.7:1"}, "travel unencrypted"},
                {{"--ca=no/such/file"}, "the CA file no/such/file cannot be read"},
                {{"--ca=" + token}, "is no PEM file"},
                {{"--key=" + token}, "the certificate is missing"},
                {{"--certificate=" + token}, "the key is missing"}};
  for (const auto& entry : kCases) {
    std::vector<std::string> words = {"info"};
    words.insert(words.end(), entry.flags.begin(), entry.flags.end());
    const Outcome outcome = RunChorus(words);
    EXPECT_EQ(outcome.code, 2) << entry.message;
    EXPECT_THAT(outcome.err, testing::HasSubstr(entry.message));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
  const FakeService service;
  EXPECT_EQ(RunChorus({"info", "--server=" + service.target(), "--token_file=" + token}).code, 0);
  EXPECT_EQ(service.authorization(), "Bearer token-0123456789");
}

TEST(CommandLineUsageTest, WrongUsageIsOneLineAndExitCodeTwo) {
  const std::vector<std::vector<std::string>> cases = {{"aks"},          {"--bogus"},
                                                       {"ask"},          {"ask", "a", "b"},
                                                       {"ask", "--x=1"}, {"ask", "q", "--top_k=x"},
                                                       {"tokenize"},     {"detokenize"},
                                                       {"info", "word"}, {"load"},
                                                       {"health", "x"}};
  for (const std::vector<std::string>& arguments : cases) {
    const Outcome outcome = RunChorus(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments.front();
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_TRUE(absl::StartsWith(outcome.err, "chorus")) << outcome.err;
  }
  EXPECT_EQ(RunChorus({}).code, 2);
}

TEST(CommandLineUsageTest, HelpOfTheProgramAndOfEveryCommandNeedsNoServer) {
  for (const char* help : {"--help", "-h", "help"}) {
    const Outcome outcome = RunChorus({help});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.out, HasSubstr("Usage: chorus COMMAND"));
  }
  for (const char* command : {"ask", "health", "info", "tokenize", "load", "mask", "detokenize"}) {
    const Outcome outcome = RunChorus({command, "--help"});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.out, HasSubstr(absl::StrCat("Usage: chorus ", command)));
    EXPECT_THAT(outcome.out, HasSubstr("Example"));
    EXPECT_EQ(outcome.err, "");
  }
}

}  // namespace
}  // namespace chorus
