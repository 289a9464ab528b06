#!/usr/bin/env python3
"""What bit-for-bit determinism costs: PackedLinear beside at::linear, shape by shape.

    python3 tests/bench/determinism_price.py [--rounds 3] [--output RESULT.json]

In PackedLinear every output is one chain of multiply-adds in a fixed order, whatever else is in the
batch; at::linear (oneDNN and MKL) may choose by shape. Each round runs kernels_bench and then
torch_linear_bench; a ratio is taken within its round, the table shows the median of the ratios.
Above 1: PackedLinear is faster. The last lines weigh the shapes as a step of SmolLM2-135M of so
many rows does (one row in four giving a token). Needs no Python package; about 1 minute a round.
"""

import argparse
import pathlib
import statistics
import sys

import bench_common as common
import machine_rates

DTYPES = ("float32", "bfloat16")
ROWS_PER_TOKEN = 4


def step_work(shapes, num_rows):
    head_rows = max(1, num_rows // ROWS_PER_TOKEN)
    return [(shape, head_rows if shape == shapes.head else num_rows, flops)
            for shape, flops in shapes.matrix_flops(num_rows, head_rows)]


def row_of(dtype, name, work_of, rounds):
    """One line of the table. `work_of`: number of rows -> what MatrixRates.weighted wants."""
    row = {"dtype": dtype, "shape": name, "ratios": {}, "packed_gflops": {}, "at_gflops": {}}
    for num_rows in rounds[0].packed_linear.num_rows():
        work = work_of(num_rows)
        packed = [rates.packed_linear.weighted(dtype, work) for rates in rounds]
        torch = [rates.at_linear.weighted(dtype, work) for rates in rounds]
        row["ratios"][num_rows] = statistics.median(a / b for a, b in zip(packed, torch))
        row["packed_gflops"][num_rows] = statistics.median(packed) * 1e-9
        row["at_gflops"][num_rows] = statistics.median(torch) * 1e-9
    return row


def table_of(rounds, shapes):
    table = []
    for dtype in DTYPES:
        for shape in (*shapes.layer, shapes.head):
            table.append(row_of(dtype, f"{shape[0]} x {shape[1]}",
                                lambda num_rows, shape=shape: [(shape, num_rows, 1.0)], rounds))
        table.append(row_of(dtype, "a step's weighted mean",
                            lambda num_rows: step_work(shapes, num_rows), rounds))
    return table


def markdown(table):
    num_rows = list(table[0]["ratios"])
    rows = [[row["dtype"], row["shape"],
             *(f"{row['ratios'][n]:.2f} ({row['packed_gflops'][n]:.0f})" for n in num_rows)]
            for row in table]
    return common.markdown_table(["dtype", "in x out", *(f"{n} rows" for n in num_rows)], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=pathlib.Path, default=common.DEFAULT_MODEL,
                        help="whose config.json names the shapes")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="JSON")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.threads) < 1:
        parser.error("--rounds and --threads must be at least 1")
    return arguments


def main():
    arguments = parse_arguments()
    shapes = machine_rates.ModelShapes(arguments.model)
    rounds = []
    progress = common.Progress("rounds", arguments.rounds)
    for _ in range(arguments.rounds):
        rounds.append(machine_rates.MachineRates(arguments.threads))
        progress.step()
    table = table_of(rounds, shapes)
    fma = statistics.median(rates.fma_flops_per_second for rates in rounds)
    read = statistics.median(rates.read_bytes_per_second for rates in rounds)
    print(f"\nPackedLinear's rate / at::linear's in the same round (PackedLinear's GFLOP/s), "
          f"{arguments.threads} threads; float32 FMA {fma * 1e-9:.0f} GFLOP/s, memory read "
          f"{read * 1e-9:.1f} GB/s; medians of {arguments.rounds}\n\n{markdown(table)}")
    common.write_json(arguments.output, {
        "threads": arguments.threads, "rounds": arguments.rounds, "fma_flops_per_second": fma,
        "read_bytes_per_second": read, "table": table})
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
