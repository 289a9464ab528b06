#!/usr/bin/env python3
"""The segment-attention kernels alone: are they right, and how fast beside PyTorch's. One JSON document.

    python3 tests/bench/gpu_kernels.py --library build/release/lib/libchorus_kernels_abi.so
    python3 tests/bench/gpu_kernels.py --library build/release/lib/libchorus_kernels_abi_host.so --host

For each head shape (24/8 heads of 128, 32/8 of 64; bfloat16) and each kernel kind, first: sampled rows against
float64, at most twice as far off as PyTorch's own bfloat16 attention on the same rows; log-sum-exp within 0.001; two
runs, and a request alone and in its batch, bit for bit the same. Keys lie in scattered slots, unused slots are NaN.
Then time: medians, the second-level cache emptied before each call, contenders in turns. "useful" TFLOP/s count
4 * head_dim * heads * allowed pairs, whatever a contender computes beyond. --host runs the same sources on simulated
thread blocks with small cases: it proves the script and the results, and its times mean nothing. Exit code 1: a result
is wrong. 3: the device was lost; the same command goes on behind it with --out. Usually called by gpu.sh.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time

import gpu_comparators
import numpy
from gpu_abi import KernelError, Kernels
from gpu_cases import GPU_CASES, HEADS, HOST_CASES, HOST_MIXED, MIXED, expected_row, sampled_tokens
from gpu_memory import open_memory
from gpu_report import EXIT_LOST, TIMING, DeviceLost, Report, first_line

SAMPLED_TOKENS = 24
SPARE_SLOTS = 61
LOG_SUM_EXP_LIMIT = 1e-3
FLEX_TIMES_SHORT = 3  # so much faster than FlexAttention where segments are short; elsewhere faster
# Where there is no PyTorch to compare with: weights and outputs are rounded to 8 bits, values are below 1.
BFLOAT16_LIMIT = 1.5 * 2.0 ** -8 + 1e-4


class Step:
    """A planned step with its arrays: q, k and v are random, or those of another step."""

    def __init__(self, kernels, memory, heads, requests, kind, slots=None, seed=1, of=None):
        self.memory, self.requests, self.heads = memory, requests, heads
        num_heads, num_kv_heads, head_dim = heads
        self.slots = slots
        self.plan = kernels.plan(heads, requests, kind, slots)
        if of is None:
            num_slots = self.plan.num_tokens + (0 if slots is None else SPARE_SLOTS)
            self.q = memory.uniform((self.plan.num_rows, num_heads, head_dim), 3.0, seed)
            self.k, self.v = (self._keys(num_slots, part) for part in (seed + 1, seed + 2))
        else:
            self.q, self.k, self.v = of
        self.out = memory.nans(self.q.shape)
        self.log_sum_exp = memory.floats((self.plan.num_rows, num_heads))
        self._workspace = memory.floats((max(1, self.plan.workspace_floats),))
        self._arrays = {name: memory.upload(data) for name, data in self.plan.arrays.items()}
        pointers = {"q": self.q, "k": self.k, "v": self.v, "out": self.out, "log_sum_exp": self.log_sum_exp,
                    "workspace": self._workspace}
        self._launch = self.plan.launcher({name: memory.pointer(array) for name, array in pointers.items()},
                                          len(self.k), {name: memory.pointer(array) for name, array in self._arrays.items()})

    def _keys(self, num_slots, seed):
        values = self.memory.uniform((self.plan.num_tokens, *self.heads[1:]), 1.0, seed)
        if self.slots is None:
            return values
        store = self.memory.nans((num_slots, *self.heads[1:]))
        self.memory.scatter(store, self.slots, values)
        return store

    def run(self):
        self._launch(self.memory.stream)

    def slots_of(self, begin, tokens):
        indices = begin + numpy.asarray(tokens)
        return indices if self.slots is None else self.slots[indices]

    def spans(self):
        """(request, its first row of the step, its first token) of each."""
        row = token = 0
        for request in self.requests:
            yield request, row, token
            row += request.length - request.first_row
            token += request.length


def scattered(num_tokens, seed=7):
    return numpy.random.default_rng(seed).permutation(num_tokens + SPARE_SLOTS)[:num_tokens].astype(numpy.int32)


def torch_row(torch, step, row, slots):
    """PyTorch's bfloat16 attention of one row over the keys in `slots`. Not cuDNN's, which would plan anew for each
    number of keys."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q = step.q[row].reshape(1, -1, 1, step.heads[2])
    k, v = (step.memory.take(x, slots).transpose(0, 1).unsqueeze(0).repeat_interleave(step.heads[0] // step.heads[1], dim=1)
            for x in (step.k, step.v))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return out.reshape(-1, step.heads[2]).float().cpu().numpy()


def compare_with_float64(step):
    """Largest differences over sampled rows."""
    memory = step.memory
    out_error = torch_error = log_sum_exp_error = 0.0
    for index, (request, first_row, first_token) in enumerate(step.spans()):
        if index >= 4:
            break
        for token in sampled_tokens(request, SAMPLED_TOKENS, seed=index).tolist():
            row = first_row + token - request.first_row

            def keys_of(tokens, begin=first_token):
                slots = step.slots_of(begin, tokens)
                return (memory.to_float(memory.take(x, slots)) for x in (step.k, step.v))
            out, log_sum_exp = expected_row(request, token, memory.to_float(step.q[row]), keys_of)
            out_error = max(out_error, float(numpy.abs(memory.to_float(step.out[row]) - out).max()))
            log_sum_exp_error = max(log_sum_exp_error, float(
                numpy.abs(memory.to_float(step.log_sum_exp[row]) - log_sum_exp).max()))
            if memory.is_gpu:
                visible = numpy.flatnonzero(request.allowed([token])[0])
                theirs = torch_row(memory.torch, step, row, step.slots_of(first_token, visible))
                torch_error = max(torch_error, float(numpy.abs(theirs - out).max()))
    # NaN, of a slot that should not have been read, compares as false: a maximum may hide it.
    is_finite = memory.is_finite(step.out) and memory.is_finite(step.log_sum_exp)
    limit = 2 * torch_error if memory.is_gpu else BFLOAT16_LIMIT
    return {"error": out_error, "torch_error": torch_error if memory.is_gpu else None, "limit": limit,
            "log_sum_exp_error": log_sum_exp_error, "is_finite": is_finite,
            "ok": is_finite and out_error <= limit and log_sum_exp_error <= LOG_SUM_EXP_LIMIT}


def check_determinism(kernels, step, kind):
    """The step again, and its first and last request alone: the same bits."""
    memory = step.memory
    first = memory.copy(step.out), memory.copy(step.log_sum_exp)
    step.run()
    memory.wait()
    again = memory.same_bits(step.out, first[0]) and memory.same_bits(step.log_sum_exp, first[1])
    alone = True
    spans = list(step.spans())
    for request, row, token in {0: spans[0], 1: spans[-1]}.values():
        rows = slice(row, row + request.length - request.first_row)
        slots = step.slots_of(token, range(request.length)).astype(numpy.int32)
        single = Step(kernels, memory, step.heads, [request], kind, slots, of=(step.q[rows], step.k, step.v))
        single.run()
        memory.wait()
        alone = alone and memory.same_bits(single.out, step.out[rows])
        alone = alone and memory.same_bits(single.log_sum_exp, step.log_sum_exp[rows])
    return {"again": again, "alone": alone, "ok": again and alone}


def check_requests(kernels, memory, heads, requests, kind):
    """Everything that must hold of one step, keys in scattered slots."""
    num_tokens = sum(request.length for request in requests)
    step = Step(kernels, memory, heads, requests, kind, scattered(num_tokens))
    step.run()
    memory.wait()
    expected_pairs = sum(request.num_pairs() for request in requests)
    found = compare_with_float64(step)
    found["determinism"] = check_determinism(kernels, step, kind)
    found["pairs"] = step.plan.num_pairs
    found["ok"] = found["ok"] and found["determinism"]["ok"] and step.plan.num_pairs == expected_pairs
    return found


def comparable(memory, case, step):
    """q, k, v of the first layer as PyTorch takes them: [requests, heads, rows, d]."""
    count = case.num_requests
    rows, length = case.request.length - case.request.first_row, case.request.length

    def shaped(x, size):
        return memory.as_torch(x).reshape(count, size, *x.shape[1:]).transpose(1, 2).contiguous()
    return shaped(step.q, rows), shaped(step.k, length), shaped(step.v, length)


def layers_of(kernels, memory, heads, case, kind):
    """The steps of one call. In a graph of decode steps each layer has keys of its own, which are in no cache; those of
    a prompt were written by the kernel before and are."""
    count = case.layers_in_graph if case.request.is_decode else 1
    return [Step(kernels, memory, heads, case.requests, kind, seed=3 * layer + 1) for layer in range(max(1, count))]


def in_graph(memory, case, calls):
    """`calls`, one a layer or one for all, as what is timed."""
    if not case.layers_in_graph:
        return calls[0]
    return memory.graph(calls * (case.layers_in_graph // len(calls)))


def time_ours(kernels, memory, heads, case, kind, with_scattered):
    """({contender: function}, the steps): of one kind, and with scattered slots."""
    layers = layers_of(kernels, memory, heads, case, kind)
    contenders = {f"chorus {kind}": in_graph(memory, case, [layer.run for layer in layers])}
    if with_scattered and not case.layers_in_graph:
        num_tokens = sum(request.length for request in case.requests)
        moved = Step(kernels, memory, heads, case.requests, kind, scattered(num_tokens))
        contenders[f"chorus {kind}, scattered slots"] = moved.run
    for contender in contenders.values():
        contender()
    memory.wait()
    return contenders, layers


def add_comparators(memory, case, layers, contenders, report, step):
    """Adds them to `contenders`; returns (names with our mask, missing, largest difference to ours)."""
    try:
        import torch
    except ImportError as error:
        return set(), {"all": f"torch cannot be imported: {error}"}, {}

    def begin(name, layer=layers[0]):
        return report.begin(*step, name, is_quiet=layer is not layers[0])
    theirs = []
    begin("comparators")
    with report.attempt():
        theirs = [gpu_comparators.contenders_of(torch, case, *comparable(memory, case, layer),
                                                functools.partial(begin, layer=layer), report.check_device)
                  for layer in layers]
    if not theirs:
        return set(), {"all": "see failures"}, {}
    layers[0].run()
    memory.wait()
    ours = memory.as_torch(layers[0].out).reshape(case.num_requests, -1, *layers[0].heads[::2])
    differences, missing = {}, theirs[0].missing
    for name, function in theirs[0].run.items():
        if not begin(name):
            continue
        with report.attempt():
            if name in theirs[0].same_mask:
                differences[name] = float((function().transpose(1, 2) - ours).abs().max())
            try:
                contenders[name] = in_graph(memory, case, [layer.run[name] for layer in theirs])
            except Exception as error:  # noqa: BLE001 - a comparator may fail in any way of its own
                missing[name] = f"not to be captured in a graph: {first_line(error)}"
                report.check_device(error, is_lost=memory.is_gpu)
    return theirs[0].same_mask, missing, differences


def judge(case, head_name, best, times, copy_rate, heads):
    """The target of a case and whether it is met; ratios against the comparators."""
    microseconds = times[best]
    cached_bytes = 2 * 2 * heads[1] * heads[2] * sum(request.length for request in case.requests)
    value = {"us": microseconds, "TFLOP/s": case.useful_flops(heads) / microseconds / 1e6,
             "share": cached_bytes / microseconds * 1e6 / copy_rate if copy_rate else None}
    found = {"best": best, "useful_tflops": value["TFLOP/s"], "kv_share_of_copy_rate": value["share"]}
    target = case.targets.get(head_name)
    dense = {name: us for name, us in times.items() if name.startswith("SDPA causal")}
    if dense:
        found["best_dense"] = min(dense, key=dense.get)
        found["times_best_dense"] = min(dense.values()) / microseconds
    found["times_faster_than"] = {name: us / microseconds for name, us in times.items() if not name.startswith("chorus")}
    faster = found["times_faster_than"]
    varlen = [ratio for name, ratio in faster.items() if name.startswith(("varlen", "FlashInfer"))]
    if varlen:
        found["at_least_equal_to_varlen"] = min(varlen) >= 1
    if "FlexAttention" in faster:
        found["flex_target"] = FLEX_TIMES_SHORT if "6 x 50" in case.name else 1
        found["flex_met"] = faster["FlexAttention"] > found["flex_target"]
    if target and value[target.unit] is not None:
        found["target"] = {"unit": target.unit, "value": value[target.unit]}
        for grade in ("first", "must", "stretch"):
            limit = getattr(target, grade)
            found["target"][grade] = limit
            found["target"][f"{grade}_met"] = target.is_met(value[target.unit], limit)
        if target.against_dense and dense:
            found["target"]["dense_first_must"] = target.against_dense
            found["target"]["dense_met"] = [found["times_best_dense"] >= limit for limit in target.against_dense]
    return found


def check_kinds(kernels, memory, head_name, name, requests, report):
    """{kind: what was found} of those that could be run."""
    found = {}
    for kind in kernels.kinds:
        if report.begin(head_name, name, f"chorus {kind}"):
            with report.attempt():
                found[kind] = check_requests(kernels, memory, HEADS[head_name], requests, kind)
    return found


def run_case(kernels, memory, head_name, case, copy_rate, report):
    heads, step = HEADS[head_name], (head_name, case.name)
    memory.trim()
    result = {"case": case.name, "heads": head_name, "requests": case.num_requests, "rows": 0, "microseconds": {},
              "same_mask": [], "not_measured": {}, "largest_difference": {}, "layers_in_graph": case.layers_in_graph}
    result["checks"] = check_kinds(kernels, memory, head_name, case.name, case.requests, report)
    contenders, layers = {}, None
    for kind in result["checks"]:
        if not report.begin(*step, f"chorus {kind}"):
            continue
        # Half a recording may be left behind, in which others would be caught.
        with report.attempt(is_lost=memory.is_gpu and case.layers_in_graph > 0):
            ours, steps = time_ours(kernels, memory, heads, case, kind, with_scattered=memory.is_gpu)
            contenders.update(ours)
            layers = layers or steps
    if layers is None or report.is_excluded(*step, TIMING):
        return result
    result["rows"] = layers[0].plan.num_rows
    same_mask, missing, differences = add_comparators(memory, case, layers, contenders, report, step)
    report.begin(*step, TIMING)
    with report.attempt():
        def failed(name, error):
            missing[name] = first_line(error)
            report.check_device(error)
        times = memory.measure(contenders, max(1, case.layers_in_graph), is_cold=not case.layers_in_graph, failed=failed)
        result.update(microseconds=times, same_mask=sorted(same_mask & set(times)), not_measured=missing,
                      largest_difference=differences)
        ours = {name: us for name, us in times.items() if name in {f"chorus {kind}" for kind in kernels.kinds}}
        if memory.is_gpu:
            result.update(judge(case, head_name, min(ours, key=ours.get), times, copy_rate, heads))
    return result


def cases_of(head_name, is_host, only):
    for case in HOST_CASES if is_host else GPU_CASES:
        if (is_host or head_name in case.targets) and (not only or case.request.is_decode == (only == "decode")):
            yield case


def run(arguments, memory, report):
    deadline = time.monotonic() + arguments.seconds
    kernels = Kernels(arguments.library)
    copy_rate = memory.copy_bytes_per_second() if memory.is_gpu else None
    document = report.document
    document.update(device=memory.name, kinds=kernels.kinds, copy_bytes_per_second=copy_rate, not_run=[])
    done = {(case["heads"], case["case"]) for case in document["cases"]}
    done |= {(mixed["heads"], "mixed") for mixed in document["mixed"]}
    for head_name in HEADS:
        if arguments.quick and head_name != "head_dim_64":
            continue
        if arguments.only != "decode" and (head_name, "mixed") not in done:
            requests = HOST_MIXED if arguments.host else MIXED
            found = check_kinds(kernels, memory, head_name, "mixed", requests, report)
            document["mixed"] += [{"heads": head_name, "kind": kind, **mixed} for kind, mixed in found.items()]
        for case in cases_of(head_name, arguments.host, arguments.only):
            if (head_name, case.name) in done:
                continue
            if time.monotonic() > deadline:
                document["not_run"].append(f"{head_name}: {case.name}")
                continue
            document["cases"].append(run_case(kernels, memory, head_name, case, copy_rate, report))
            report.save()
    report.finish()
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, required=True, help="libchorus_kernels_abi.so, or _host.so")
    parser.add_argument("--host", action="store_true", help="simulated thread blocks, small cases")
    parser.add_argument("--quick", action="store_true", help="heads of 64 only")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU (default 0)")
    parser.add_argument("--only", choices=("prefill", "decode"), help="only these cases")
    parser.add_argument("--seconds", type=float, default=3600, help="no case is begun after that; they are named in not_run")
    parser.add_argument("--out", type=pathlib.Path,
                        help="the document goes here instead of stdout, at every step; what it has already is kept")
    arguments = parser.parse_args()
    memory, why = open_memory(arguments.host, arguments.device)
    if memory is None:
        print(f"error: no GPU: {why}. --host runs through on simulated thread blocks.", file=sys.stderr)
        return 1
    report = Report(arguments.out, memory)
    try:
        document = run(arguments, memory, report)
    except DeviceLost as error:
        print(f"error: the device is lost: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(EXIT_LOST)  # nothing of what would free the device's memory can be trusted
    except (KernelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not arguments.out:
        json.dump(document, sys.stdout, indent=1)
        print()
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
