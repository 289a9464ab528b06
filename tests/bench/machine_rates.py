"""What this machine can do at a model's matrices: kernels_bench and torch_linear_bench, run one
after the other, and their rates weighted by the work of each matrix."""

import json
import math
import pathlib
import subprocess
import sys

import bench_common as common

FOLDER = common.ROOT / "build" / "release" / "bin"
BENCH_SECONDS = 900


def run_bench(name, *arguments):
    """The JSON that build/release/bin/`name` prints."""
    path = FOLDER / name
    if not path.is_file():
        raise common.BenchError(f"{path} is not there: build it with\n"
                                f"  cmake --build build/release --target {name}")
    print(f"running {name}", file=sys.stderr, flush=True)
    done = subprocess.run([str(path), *map(str, arguments)], capture_output=True, text=True,
                          timeout=BENCH_SECONDS, check=False)
    if done.returncode != 0:
        raise common.BenchError(f"{name} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


class MatrixRates:
    """Measured seconds of y = x W^T: for each dtype, shape and number of rows."""

    def __init__(self, rows):
        self._microseconds = {
            (row["type"], row["in_features"], row["out_features"], row["num_rows"]):
                row["microseconds"] for row in rows}

    def shapes(self):
        return sorted({key[1:3] for key in self._microseconds})

    def num_rows(self):
        return sorted({key[3] for key in self._microseconds})

    def flops_per_second(self, dtype, shape, num_rows):
        """At the measured number of rows that is nearest by ratio."""
        if shape not in self.shapes():
            raise common.BenchError(f"no rate of a {shape[0]} x {shape[1]} matrix was measured: the "
                                    "C++ benchmarks know the shapes of SmolLM2-135M alone")
        nearest = min(self.num_rows(), key=lambda rows: abs(math.log(rows / max(1, num_rows))))
        seconds = self._microseconds[dtype, *shape, nearest] * 1e-6
        return 2.0 * nearest * shape[0] * shape[1] / seconds

    def weighted(self, dtype, work):
        """`work`: a list of (shape, rows a step, FLOPs). The rate at which all of it runs."""
        seconds = sum(flops / self.flops_per_second(dtype, shape, num_rows)
                      for shape, num_rows, flops in work)
        return sum(flops for _, _, flops in work) / seconds


class MachineRates:
    """One measurement of everything, about a minute on a quiet machine."""

    def __init__(self, threads):
        own = run_bench("kernels_bench", threads, "linear")
        torch = run_bench("torch_linear_bench", threads)
        self.read_bytes_per_second = own["read_gb_per_second"] * 1e9
        self.fma_flops_per_second = own["fma_gflops"] * 1e9
        # None where the processor has no bfloat16 dot products.
        dot = own["dot_gflops"]
        self.dot_flops_per_second = None if dot is None else dot * 1e9
        self.packed_linear = MatrixRates(own["linear"])
        self.at_linear = MatrixRates(torch["linear"])


class ModelShapes:
    """The matrices of a Llama model, from its config.json."""

    def __init__(self, model):
        path = pathlib.Path(model) / "config.json"
        if not path.is_file():
            raise common.BenchError(f"{path} is not there: name a model with --model")
        config = json.loads(path.read_text(encoding="utf-8"))
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head_dim = config.get("head_dim") or hidden // heads
        kv_heads = config.get("num_key_value_heads", heads)
        self.num_layers = config["num_hidden_layers"]
        self.query_size = heads * head_dim
        # (in, out) as the engine multiplies: q, k and v in one; gate and up in one.
        self.layer = ((hidden, (heads + 2 * kv_heads) * head_dim), (self.query_size, hidden),
                      (hidden, 2 * config["intermediate_size"]),
                      (config["intermediate_size"], hidden))
        self.head = (hidden, config["vocab_size"])

    def matrix_flops(self, num_rows, num_head_rows):
        """[(shape, FLOPs)]: every row goes through all layers, some through the head."""
        work = [(shape, 2.0 * num_rows * self.num_layers * shape[0] * shape[1])
                for shape in self.layer]
        return [*work, (self.head, 2.0 * num_head_rows * self.head[0] * self.head[1])]

    def attention_flops(self, num_pairs):
        """`num_pairs`: keys that rows see, summed over the rows. q k^T and p v, each a
        multiplication and an addition."""
        return 4.0 * num_pairs * self.query_size * self.num_layers
