#!/usr/bin/env python3
"""Questions answered a second by a loaded server, beside the machine's limits and llama.cpp.

    python3 tests/bench/throughput.py [--dtypes float32,bfloat16] [--rounds 3]
        [--llama-python PATH] [--output RESULT.json]
    python3 tests/bench/throughput.py --rounds 1 --requests 32 --dtypes bfloat16      a quick trial

Every round measures, one after the other and never two at a time: the machine's limits
(kernels_bench, torch_linear_bench), and for each dtype a fresh chorus-server under

    chorus load --data=tests/data/qa.jsonl --unique --clients=32 --max_new_tokens=16 --ignore_eos

in the few-shot frame (ATTENTION, 6 prompts, all different), then llama.cpp on the same token ids
(llama_cpp_reference.py says how). Ratios are taken within a round; the tables show medians.

Roofline: the sum over the server's steps of max(FLOPs / GEMM rate, weight bytes / read rate). Rows
are those that the server says it computed, so what the segment cache served does not count; FLOPs
are those of all matrices, of attention, and of the head for rows that give a token. GEMM rates,
each at about the steps' number of rows and weighted by the FLOPs of the model's shapes:
  float32 FMA    what the cores' float32 multiply-adds could do at most
  bfloat16 dot   what their dot products of bfloat16 pairs could do, twice that or so; bfloat16
                 alone, where the processor has them
  at::linear     what LibTorch does in this dtype
  PackedLinear   what the engine's own kernel does alone: the rest is lost outside it
The fraction is roofline seconds / measured seconds. Needs: python3 -m pip install -r
tests/bench/requirements.txt, and for llama.cpp an interpreter with llama-cpp-python.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import bench_common as common
import llama_cpp_peer
import load_common
import machine_rates
import roofline

GEMM_RATES = ("float32 FMA", "bfloat16 dot", "at::linear", "PackedLinear")
WARM_UP_SEED = 9999  # of other questions than any round's
JOBS = {"fused": "made to fuse", "parallel": "every prompt for itself"}


def load_flags(arguments, seed, num_requests):
    return [f"--data={arguments.qa}", "--unique", f"--seed={seed}", f"--clients={arguments.clients}",
            f"--requests={num_requests}", f"--max_new_tokens={arguments.max_new_tokens}",
            "--ignore_eos", f"--prefix={common.PREFIX}", f"--suffix={common.SUFFIX}"]


def tokenise(arguments, seed, messages, stub):
    """The token ids that `chorus load --unique` with this seed asks, as llama_cpp_reference.py
    wants them; every piece on its own, as the server does."""
    def ids(text, recognize_special=False):
        request = messages.TokenizeRequest(text=text, recognize_special=recognize_special)
        return list(stub.Tokenize(request, timeout=common.CALL_SECONDS).token_ids)

    info = stub.GetModelInfo(messages.GetModelInfoRequest(), timeout=common.CALL_SECONDS)
    bos = [info.bos_token_id] if info.HasField("bos_token_id") else []
    items = common.read_questions(arguments.qa)
    questions = []
    for index in range(arguments.requests):
        item = items[index % len(items)]
        questions.append([ids(f"[{seed % 10000}.{index}] {wording}")
                          for wording in (item["question"], *item["paraphrases"])])
    return {"prefix": bos + ids(common.PREFIX, True), "questions": questions,
            "suffix": ids(common.SUFFIX, True)}


def check_same_work(load, work, arguments):
    """Everything was answered, and the token ids are really those of the load."""
    if load["requests"]["ok"] != arguments.requests:
        raise common.BenchError(f"not every request was answered: {load['requests']}, "
                                f"{load['error_messages']}")
    fixed = len(work["prefix"]) + len(work["suffix"])
    expected = sum(fixed + sum(map(len, prompts)) for prompts in work["questions"])
    if load["tokens"]["prompt"] != expected:
        raise common.BenchError(f"the load's prompts had {load['tokens']['prompt']} tokens, this "
                                f"script's have {expected}: llama.cpp would get another job")


def fused_answers(work, arguments, messages, stub):
    """Chorus' own answers to the first questions, to compare llama.cpp's with."""
    answers = []
    for prompts in work["questions"][:arguments.check_questions]:
        request = messages.GenerateRequest()
        request.prompt.tokens.prefix.token_ids.extend(work["prefix"])
        request.prompt.tokens.suffix.token_ids.extend(work["suffix"])
        for prompt in prompts:
            request.prompt.tokens.segments.add().token_ids.extend(prompt)
        request.stopping.max_new_tokens = arguments.max_new_tokens
        request.stopping.ignore_eos = True
        answers.append(list(common.generate(stub, request).token_ids))
    return answers


def measure_chorus(dtype, seed, arguments, messages, services):
    """(figures, roofline.Work, token ids of the work, some answers)."""
    with (common.Server(arguments.binary, arguments.model, dtype, arguments.threads,
                        arguments.server_flag) as server,
          common.connection(server.target, services) as stub):
        info = stub.GetModelInfo(messages.GetModelInfoRequest(), timeout=common.CALL_SECONDS)
        print(f"chorus {dtype}", file=sys.stderr, flush=True)
        load_common.run_load(arguments.load_binary, server,
                             load_flags(arguments, WARM_UP_SEED, arguments.clients), quiet=True)
        before = load_common.wait_until_idle(server)
        load = load_common.run_load(arguments.load_binary, server,
                                    load_flags(arguments, seed, arguments.requests))
        after = load_common.wait_until_idle(server)
        work = tokenise(arguments, seed, messages, stub)
        check_same_work(load, work, arguments)
        answers = fused_answers(work, arguments, messages, stub)
        memory = server.memory_mib()
    shapes = machine_rates.ModelShapes(arguments.model)
    lengths = [(len(work["prefix"]), [len(prompt) for prompt in prompts], len(work["suffix"]),
                arguments.max_new_tokens) for prompts in work["questions"]]
    done = roofline.Work(shapes, before, after, lengths)
    figures = {"questions_per_second": load["requests_per_second"], "seconds": load["seconds"],
               "ttft_p50": load["ttft_seconds"]["p50"], "ttft_p99": load["ttft_seconds"]["p99"],
               "inter_token_p50": load["inter_token_seconds"]["p50"],
               "steps": done.num_steps, "rows": done.num_rows,
               "rows_per_step": done.rows_per_step, "prompt_tokens": done.prompt_tokens,
               "cached_tokens": done.cached_tokens, "flops": done.flops(),
               "weight_bytes": info.weight_bytes, "resident_mib": memory["resident"]}
    return figures, done, work, answers


def add_roofline(figures, done, dtype, rates):
    """Adds to the figures, for each GEMM rate: the rate, roofline seconds, the fraction."""
    gemm_work = done.gemm_work()
    found = {"float32 FMA": rates.fma_flops_per_second,
             "bfloat16 dot": rates.dot_flops_per_second if dtype == "bfloat16" else None,
             "at::linear": rates.at_linear.weighted(dtype, gemm_work),
             "PackedLinear": rates.packed_linear.weighted(dtype, gemm_work)}
    figures["read_bytes_per_second"] = rates.read_bytes_per_second
    figures["gemm"] = {}
    for name in GEMM_RATES:
        if found[name] is None:
            continue
        seconds = done.roofline_seconds(found[name], figures["weight_bytes"],
                                        rates.read_bytes_per_second)
        figures["gemm"][name] = {"flops_per_second": found[name], "roofline_seconds": seconds,
                                 "fraction": seconds / figures["seconds"]}


def measure_llama(peer, work, answers, chorus, folder):
    """{job: figures} of llama.cpp; its settings are found in the first round."""
    results = {}
    work_file = folder / "work.json"
    work_file.write_text(json.dumps(work))
    for job in JOBS:
        row = peer.measure(job, work_file)
        theirs = row.pop("answers")
        if job == "fused":
            row["same_answers"] = sum([ours] == other for ours, other in zip(answers, theirs))
            row["compared_answers"] = len(answers)
        row["chorus_times_faster"] = (chorus["questions_per_second"]
                                      / row["questions_per_second"])
        results[job] = row
    return results


def measure_all(arguments, messages, services, folder):
    """A list of rounds: {dtype: {"chorus": figures, "llama": {job: figures}}}."""
    rounds, peers = [], {}
    for number in range(1, arguments.rounds + 1):
        print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
        rates = machine_rates.MachineRates(arguments.threads)
        result = {}
        for dtype in arguments.dtypes:
            chorus, done, work, answers = measure_chorus(dtype, number, arguments, messages,
                                                         services)
            add_roofline(chorus, done, dtype, rates)
            result[dtype] = {"chorus": chorus, "llama": {}}
            if arguments.llama_python is not None:
                peer = peers.setdefault(dtype, llama_cpp_peer.Peer(arguments, dtype))
                work["questions"] = work["questions"][:arguments.llama_requests]
                result[dtype]["llama"] = measure_llama(peer, work, answers, chorus, folder)
        rounds.append(result)
    return rounds


def median(rounds, dtype, pick):
    return statistics.median(pick(result[dtype]) for result in rounds)


def chorus_markdown(rounds, arguments):
    rows = []
    for dtype in arguments.dtypes:
        def figure(pick, dtype=dtype):
            return median(rounds, dtype, lambda row: pick(row["chorus"]))

        def of_roofline(name, dtype=dtype, figure=figure):
            if name not in rounds[0][dtype]["chorus"]["gemm"]:
                return "-"
            return (f"{figure(lambda row: row['gemm'][name]['fraction']):.0%} of "
                    f"{figure(lambda row: row['gemm'][name]['flops_per_second']) * 1e-9:.0f}")
        rows.append([dtype, f"{figure(lambda row: row['questions_per_second']):.2f}",
                     f"{figure(lambda row: row['rows_per_step']):.0f}",
                     f"{figure(lambda row: row['rows']) / arguments.requests:.0f}",
                     f"{figure(lambda row: row['flops'] / row['seconds']) * 1e-9:.0f}",
                     *map(of_roofline, GEMM_RATES),
                     f"{figure(lambda row: row['read_bytes_per_second']) * 1e-9:.1f}",
                     f"{figure(lambda row: row['resident_mib']):.0f}"])
    return common.markdown_table(
        ["Chorus", "questions/s", "rows a step", "rows a question", "GFLOP/s",
         f"of roofline, GFLOP/s: {GEMM_RATES[0]}", *GEMM_RATES[1:], "read GB/s", "resident MiB"],
        rows)


def llama_markdown(rounds, arguments):
    rows = []
    for dtype in arguments.dtypes:
        for job, name in JOBS.items():
            def figure(key, dtype=dtype, job=job):
                return median(rounds, dtype, lambda row: row["llama"][job][key])
            last = rounds[-1][dtype]["llama"][job]
            same = (f"{last['same_answers']} of {last['compared_answers']}"
                    if job == "fused" else "-")
            rows.append([f"{name}, {dtype}", f"{figure('questions_per_second'):.2f}",
                         f"{figure('chorus_times_faster'):.2f}", last["parallel"], last["ubatch"],
                         last["flash_attention"], last["cells_of"], same])
    return common.markdown_table(
        ["llama.cpp", "questions/s", "Chorus times faster", "at a time", "ubatch",
         "flash attention", "KV cells", "answers equal to Chorus'"], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    load_common.add_server_arguments(parser)
    parser.add_argument("--dtypes", default="float32,bfloat16", type=lambda text: text.split(","),
                        help="comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--qa", type=pathlib.Path, default=common.QUESTIONS_FILE)
    parser.add_argument("--requests", type=int, default=320, help="questions a measurement")
    parser.add_argument("--clients", type=int, default=32, help="questions at a time")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--server-flag", action="append", default=[], metavar="--NAME=VALUE",
                        help="given to chorus-server; repeatable: --server-flag=--max_step_rows=256")
    parser.add_argument("--llama-python", type=pathlib.Path,
                        help="interpreter with llama-cpp-python; default: llama.cpp is left out")
    parser.add_argument("--llama-requests", type=int, default=96,
                        help="so many of the round's questions go to llama.cpp")
    parser.add_argument("--llama-parallel", type=lambda text: [int(n) for n in text.split(",")],
                        default=[32, 8], help="questions at a time to try; default 32,8")
    parser.add_argument("--tune-questions", type=int, default=32,
                        help="questions with which llama.cpp's settings are tried")
    parser.add_argument("--check-questions", type=int, default=8,
                        help="answers of both to compare")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.requests, arguments.clients, arguments.threads,
           arguments.llama_requests, arguments.tune_questions, arguments.check_questions) < 1:
        parser.error("counts must be at least 1")
    if not set(arguments.dtypes) <= {"float32", "bfloat16"}:
        parser.error("--dtypes takes float32 and bfloat16")
    return arguments


def main():
    arguments = parse_arguments()
    if not llama_cpp_peer.is_usable(arguments.llama_python):
        arguments.llama_python = None
    with (common.stubs() as (messages, services),
          tempfile.TemporaryDirectory(prefix="chorus-throughput-") as folder):
        rounds = measure_all(arguments, messages, services, pathlib.Path(folder))
    print(f"\n{arguments.requests} questions of 6 prompts, {arguments.clients} at a time, "
          f"{arguments.max_new_tokens} new tokens each, {arguments.threads} threads; medians of "
          f"{arguments.rounds} rounds\n\n{chorus_markdown(rounds, arguments)}")
    if arguments.llama_python is not None:
        print(f"\nllama.cpp on the same token ids, {arguments.llama_requests} questions:\n\n"
              + llama_markdown(rounds, arguments))
    common.write_json(arguments.output, {
        "requests": arguments.requests, "clients": arguments.clients,
        "max_new_tokens": arguments.max_new_tokens, "threads": arguments.threads,
        "server_flags": arguments.server_flag, "rounds": rounds})
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
