#include "server/flags.h"

#include <cstdio>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/devices.h"

namespace chorus {
namespace {

using testing::HasSubstr;

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

TEST(FlagsTest, DefaultsAreThoseOfTheStructs) {
  const auto parsed = ParseFlags({"--model=m"});
  ASSERT_TRUE(parsed.ok());
  ServerConfig expected;
  expected.model.directory = "m";
  EXPECT_EQ(DescribeConfig(parsed->config), DescribeConfig(expected));
  EXPECT_EQ(parsed->config.network.listen, "127.0.0.1:50051");
  EXPECT_EQ(parsed->config.engine.max_queued_requests, 256);
}

TEST(FlagsTest, ReadsEqualsAndSpaceForms) {
  const auto parsed =
      ParseFlags({"--model", "m", "--listen=0.0.0.0:1", "--threads", "3", "--drain_timeout=1m30s",
                  "--drain_delay=5s", "--kv_cache_bytes=2MiB"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->config.model.directory, "m");
  EXPECT_EQ(parsed->config.network.listen, "0.0.0.0:1");
  EXPECT_EQ(parsed->config.model.threads, 3);
  EXPECT_EQ(parsed->config.network.drain_timeout, absl::Seconds(90));
  EXPECT_EQ(parsed->config.network.drain_delay, absl::Seconds(5));
  EXPECT_EQ(parsed->config.model.kv_cache_bytes, 2 << 20);
}

TEST(FlagsTest, CommandLineBeatsTheFileWhereverItStands) {
  const std::string path = WriteFile(
      "flags_test.conf", "# a comment\n\nmodel = from-file\n--workers=2\nlog_format=json\n");
  for (const auto& arguments : {std::vector<std::string>{"--workers=3", "--config=" + path},
                                std::vector<std::string>{"--config=" + path, "--workers=3"}}) {
    const auto parsed = ParseFlags(arguments);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->config.model.directory, "from-file");
    EXPECT_EQ(parsed->config.model.workers, 3);
    EXPECT_EQ(parsed->config.log.format, "json");
  }
}

struct BadFlags {
  const char* name;
  std::vector<std::string> arguments;
  std::string message;
};

class BadFlagsTest : public testing::TestWithParam<BadFlags> {};

TEST_P(BadFlagsTest, AreRefusedInOneLineThatNamesThem) {
  absl::Status status;
  if (const auto parsed = ParseFlags(GetParam().arguments); !parsed.ok()) {
    status = parsed.status();
  } else {
    status = Validate(parsed->config);
  }
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadFlagsTest,
    testing::Values(
        BadFlags{"Unknown", {"--model=m", "--modle=x"}, "--modle is not a flag"},
        BadFlags{"NoDashes", {"model"}, "--name=value"},
        BadFlags{"NoValue", {"--model"}, "--model has no value"},
        BadFlags{"NoValueBeforeFlag", {"--model", "--threads=1"}, "--model has no value"},
        BadFlags{"NotANumber", {"--threads=many"}, "--threads=many"},
        BadFlags{"NotADuration", {"--drain_timeout=30"}, "--drain_timeout=30"},
        BadFlags{"NotBytes", {"--kv_cache_bytes=1TB"}, "--kv_cache_bytes=1TB"},
        BadFlags{"HugeBytes", {"--kv_cache_bytes=99999999999GiB"}, "--kv_cache_bytes"},
        BadFlags{"NoModel", {}, "--model is missing"},
        BadFlags{"DeviceNumber", {"--model=m", "--devices=cuda"}, "cuda:0,cuda:1"},
        BadFlags{"DeviceTwice", {"--model=m", "--devices=cuda:1,cuda:0,cuda:1"}, "cuda:1 twice"},
        BadFlags{"DeviceMixture", {"--model=m", "--devices=cpu,cuda:0"}, "--devices=cpu,cuda:0"},
        BadFlags{"DeviceDtype",
                 {"--model=m", "--devices=cuda:0", "--dtype=float32"},
                 "--dtype=float32 is for the CPU only"},
        BadFlags{"Device", {"--model=m", "--devices=tpu"}, "--devices=tpu"},
        BadFlags{"Dtype", {"--model=m", "--dtype=int8"}, "--dtype=int8"},
        BadFlags{"Shape", {"--model=m", "--random_weights=gpt"}, "--random_weights=gpt"},
        BadFlags{"Workers", {"--model=m", "--workers=0"}, "--workers=0"},
        BadFlags{"StreamRequests", {"--model=m", "--max_stream_requests=0"}, "1..65536"},
        BadFlags{"Listen", {"--model=m", "--listen=localhost"}, "HOST:PORT"},
        BadFlags{"Port", {"--model=m", "--listen=localhost:70000"}, "HOST:PORT"},
        BadFlags{"Metrics", {"--model=m", "--metrics_listen=:x"}, "--metrics_listen"},
        BadFlags{"Level", {"--model=m", "--log_level=loud"}, "--log_level=loud"},
        BadFlags{"Format", {"--model=m", "--log_format=xml"}, "--log_format=xml"},
        BadFlags{"DrainDelay", {"--model=m", "--drain_delay=2h"}, "--drain_delay=2h"},
        BadFlags{"Switch", {"--model=m", "--insecure=yes"}, "true or false"},
        BadFlags{"HalfTls", {"--model=m", "--tls_key=k"}, "--tls_certificate is missing"},
        BadFlags{"ClientCa", {"--model=m", "--tls_client_ca=c"}, "needs TLS"},
        BadFlags{"Public", {"--model=m", "--listen=0.0.0.0:1"}, "--token_file (or --tls_client_ca)"},
        BadFlags{"PublicName", {"--model=m", "--listen=localhost.example:1"}, "or --insecure"},
        BadFlags{"PublicTokens", {"--model=m", "--listen=[::]:1", "--token_file=t"}, "read along"},
        BadFlags{"PublicTls",
                 {"--model=m", "--listen=[::]:1", "--tls_key=k", "--tls_certificate=c"},
                 "anyone could call"},
        BadFlags{"Reload", {"--model=m", "--reload_interval=0s"}, "1s..24h"},
        BadFlags{"Message", {"--model=m", "--max_message_bytes=2GiB"}, "--max_message_bytes"},
        BadFlags{"Quota", {"--model=m", "--grpc_memory_bytes=1MiB"}, "--grpc_memory_bytes"},
        BadFlags{"Handshake", {"--model=m", "--handshake_timeout=0s"}, "1s..8760h, or inf"},
        BadFlags{"Health", {"--model=m", "--health_listen=x"}, "--health_listen=x"},
        BadFlags{"Drain", {"--model=m", "--drain_timeout=-1s"}, "--drain_timeout=-1s"},
        BadFlags{"Queue", {"--model=m", "--max_queued_requests=0"}, "--max_queued_requests=0"},
        BadFlags{"NoFile", {"--config=/no/such/file"}, "--config=/no/such/file"}),
    [](const auto& info) { return info.param.name; });

TEST(FlagsTest, DevicesAreListedByNumber) {
  const auto list = ParseDevices("cuda:1,cuda:0");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(list->cuda, testing::ElementsAre(1, 0));
  EXPECT_FALSE(list->is_auto);
  EXPECT_TRUE(ParseDevices("auto")->is_auto);
  EXPECT_FALSE(ParseDevices("cpu")->is_auto);
  EXPECT_TRUE(ParseDevices("cpu")->cuda.empty());
  const auto parsed = ParseFlags({"--model=m", "--devices=cuda:0", "--cuda_graphs=false"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(Validate(parsed->config).ok());
  EXPECT_FALSE(parsed->config.model.cuda_graphs);
}

TEST(FlagsTest, SwitchesNeedNoValueAndTakeOneFromAFile) {
  EXPECT_FALSE(ParseFlags({"--model=m"})->config.security.insecure);
  const auto parsed = ParseFlags({"--insecure", "--log_prompts", "--model", "m"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->config.security.insecure);
  EXPECT_TRUE(parsed->config.log.prompts);
  EXPECT_EQ(parsed->config.model.directory, "m");
  const std::string path = WriteFile("flags_test_switch.conf", "insecure=true\nlog_prompts = false\n");
  const auto from_file = ParseFlags({"--config=" + path, "--insecure=false"});
  ASSERT_TRUE(from_file.ok()) << from_file.status();
  EXPECT_FALSE(from_file->config.security.insecure);
}

TEST(ConfigTest, PublicAddressesAreAllowedWithTlsAndACheckOfCallersOrIfMeant) {
  const std::vector<std::string> tls = {"--model=m", "--listen=0.0.0.0:1", "--tls_certificate=c",
                                        "--tls_key=k"};
  for (const char* more : {"--token_file=t", "--tls_client_ca=a", "--insecure"}) {
    std::vector<std::string> arguments = tls;
    arguments.push_back(more);
    EXPECT_TRUE(Validate(ParseFlags(arguments)->config).ok()) << more;
  }
  EXPECT_TRUE(Validate(ParseFlags({"--model=m", "--listen=[::]:1", "--insecure"})->config).ok());
}

TEST(ConfigTest, LoopbackIsWhatNoOtherMachineReaches) {
  for (const char* address : {"127.0.0.1:1", "127.9.0.1:0", "localhost:80", "[::1]:5"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address : {"0.0.0.0:1", "[::]:1", "127.example.org:1", "10.0.0.1:1", "host:1",
                              "localhost.example:1"}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

TEST(FlagsTest, BadLineOfTheFileIsNamed) {
  const std::string path = WriteFile("flags_test_bad.conf", "model=m\nnonsense\n");
  const auto parsed = ParseFlags({"--config=" + path});
  ASSERT_FALSE(parsed.ok());
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("line 2"));
}

TEST(FlagsTest, HelpShowsEveryFlagWithItsDefaultUnderItsGroup) {
  const std::string help = HelpText();
  for (const char* group : {"\nModel:\n", "\nNetwork:\n", "\nSecurity:\n",
                            "\nLimits of connections:\n", "\nLimits:\n", "\nLog ("}) {
    EXPECT_THAT(help, HasSubstr(group));
  }
  EXPECT_EQ(help.find('\0'), std::string::npos);
  for (const auto& [name, value] : DescribeConfig(ServerConfig())) {
    EXPECT_THAT(help, testing::AnyOf(HasSubstr("--" + name + "="), HasSubstr("--" + name + "\n")));
    if (value.empty()) continue;
    EXPECT_THAT(help, HasSubstr("(default " + value + ")"));
  }
  EXPECT_TRUE(ParseFlags({"--help"})->help);
  EXPECT_TRUE(ParseFlags({"--version"})->version);
}

TEST(ConfigTest, ThreadsDefaultToHardwareOverWorkers) {
  ModelConfigFlags model;
  EXPECT_EQ(ThreadsPerWorker(model, 16), 16);
  model.workers = 4;
  EXPECT_EQ(ThreadsPerWorker(model, 16), 4);
  EXPECT_EQ(ThreadsPerWorker(model, 2), 1);
  model.threads = 7;
  EXPECT_EQ(ThreadsPerWorker(model, 2), 7);
}

}  // namespace
}  // namespace chorus
