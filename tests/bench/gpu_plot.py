#!/usr/bin/env python3
"""Pictures of a document of gpu.sh: kernels beside PyTorch's, decode attention, whole models, the server.

    python3 tests/bench/gpu_plot.py gpu.json PICTURES [--format svg]

Writes PICTURES/gpu_kernels, gpu_decode_attention, gpu_model and gpu_server, each where the document has something for
it, and prints their names. Needs matplotlib: .venv/bin/python has it. Of a run on simulated thread blocks (--host) the
pictures say so: their times mean nothing.
"""

import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.fonttype"] = "none"  # words stay words
import matplotlib.pyplot as plt  # noqa: E402

OURS, THEIRS, MASKED = "#0b6e4f", "#b0b7bf", "#6c8ebf"
BAR_INCHES, WIDTH_INCHES = 0.24, 8.0


def title_of(document, text):
    return f"{text}, on {document['device']}"


def colour_of(case, name):
    if name.startswith("chorus"):
        return OURS
    return MASKED if name in case["same_mask"] else THEIRS


def draw_times(axes, case):
    """Points on a logarithmic axis, which bars would have no begin on; fastest on top."""
    items = sorted(case["microseconds"].items(), key=lambda item: -item[1])
    times = [us for _, us in items]
    axes.scatter(times, range(len(items)), color=[colour_of(case, name) for name, _ in items], s=28, zorder=2)
    axes.set_yticks(range(len(items)), [name for name, _ in items])
    axes.set_xscale("log")
    axes.set_xlim(0.7 * min(times), 2 * max(times))
    axes.set_ylim(-0.6, len(items) - 0.4)
    for row, us in enumerate(times):
        axes.annotate(f"{us:,.0f}" if us >= 100 else f"{us:.3g}", (us, row), xytext=(6, 0), textcoords="offset points",
                      va="center", fontsize=7)
    axes.grid(axis="y", color="#e6e8eb", zorder=0)
    axes.tick_params(which="both", labelsize=7)
    axes.set_title(f"{case['case']}, {case['heads'].replace('_', ' ')}", fontsize=9, loc="left")
    target = case.get("target")
    if target:
        met = [grade for grade in ("first", "must", "stretch") if target[f"{grade}_met"]]
        axes.set_xlabel(f"{target['value']:.3g} {target['unit']}; targets {target['first']} / {target['must']} / "
                        f"{target['stretch']}: {', '.join(met) or 'none'} met", fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def cases_with_times(document, part):
    return [case for case in document.get(part, {}).get("cases", ()) if case["microseconds"]]


def draw_cases(document, part, text):
    cases = cases_with_times(document, part)
    heights = [len(case["microseconds"]) * BAR_INCHES + 0.6 for case in cases]
    figure, rows = plt.subplots(len(cases), 1, figsize=(WIDTH_INCHES, sum(heights) + 0.8), squeeze=False,
                                gridspec_kw={"height_ratios": heights}, layout="constrained")
    for axes, case in zip(rows[:, 0], cases, strict=True):
        draw_times(axes, case)
    figure.suptitle(title_of(document, text) + "\nmicroseconds; green: Chorus, blue: the same mask, grey: plainly causal",
                    fontsize=9)
    return figure


def finish_rates(axes, batches, title, label):
    """Tokens a second over requests at once, both logarithmic."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(label, fontsize=8)
    axes.set_ylabel("tokens/s", fontsize=8)
    axes.tick_params(which="both", labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def draw_engine(axes, name, engine):
    """Decode rates of both methods over the batch, and the roofline of the fused one where it is known."""
    for method, colour in (("ATTENTION", OURS), ("LOGIT_MEAN", THEIRS)):
        runs = [run for run in engine["runs"] if run["method"] == method]
        batches = [run["batch"] for run in runs]
        axes.plot(batches, [run["decode_tokens_per_second"] for run in runs], "o-", color=colour, label=method)
        if method == "ATTENTION" and all("roofline_tokens_per_second" in run for run in runs):
            axes.plot(batches, [run["roofline_tokens_per_second"] for run in runs], ":", color=colour,
                      label="roofline of ATTENTION")
    finish_rates(axes, batches, f"{name}, CUDA graphs {'on' if engine['graphs'] else 'off'}",
                 "requests at once, each of six prompts")


def draw_models(document):
    engines = [(name, engine) for name, found in document["model"]["models"].items() for engine in found.get("engines", ())]
    if not engines:
        return None
    columns = min(2, len(engines))
    rows = -(-len(engines) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH_INCHES, 3.2 * rows + 0.4), squeeze=False, layout="constrained")
    for axes in grid.flat[len(engines):]:
        axes.remove()
    for axes, (name, engine) in zip(grid.flat, engines, strict=False):
        draw_engine(axes, name, engine)
    figure.suptitle(title_of(document, "Decode, six fused prompts against their ensemble"), fontsize=10)
    return figure


def draw_server(document):
    """Both rates of every mode: decoding alone, and with the reading of prompts."""
    server = document["server"]
    loads = sorted(server["loads"], key=lambda load: load["streams"])
    streams = [load["streams"] for load in loads]
    figure, pair = plt.subplots(1, 2, figsize=(WIDTH_INCHES, 3.4), layout="constrained")
    for axes, figure_name, title in zip(pair, ("decode_tokens_per_second", "tokens_per_second"),
                                        ("decoding", "prompts included"), strict=True):
        for mode, colour in (("engine", MASKED), ("generate", OURS), ("many", "#c0504d")):
            rates = [load["modes"].get(mode, {}).get(figure_name) or float("nan") for load in loads]
            axes.plot(streams, rates, "o-", color=colour, label=mode)
        if all("roofline_tokens_per_second" in load for load in loads):
            axes.plot(streams, [load["roofline_tokens_per_second"] for load in loads], ":", color=THEIRS,
                      label="roofline of decoding")
        finish_rates(axes, streams, f"{server['model']}, {title}", "streams, each of six prompts")
    figure.suptitle(title_of(document, "In process (engine) and through gRPC (Generate, GenerateMany)"), fontsize=10)
    return figure


def pictures(document):
    """(name, figure) of what the document has."""
    if cases_with_times(document, "kernels"):
        yield "gpu_kernels", draw_cases(document, "kernels", "Segment attention of prompts")
    if cases_with_times(document, "decode"):
        yield "gpu_decode_attention", draw_cases(document, "decode", "Attention of generated rows")
    if document.get("model", {}).get("models"):
        figure = draw_models(document)
        if figure is not None:
            yield "gpu_model", figure
    if document.get("server", {}).get("loads"):
        yield "gpu_server", draw_server(document)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=pathlib.Path, help="JSON that gpu.sh wrote")
    parser.add_argument("folder", type=pathlib.Path, help="where the pictures go; made if it is not there")
    parser.add_argument("--format", choices=("svg", "png", "pdf"), default="svg")
    arguments = parser.parse_args()
    try:
        document = json.loads(arguments.document.read_text(encoding="utf-8"))
        arguments.folder.mkdir(parents=True, exist_ok=True)
    except (OSError, json.JSONDecodeError) as error:
        print(f"error: {arguments.document}: {error}", file=sys.stderr)
        return 1
    if not isinstance(document, dict) or "device" not in document:
        print(f"error: {arguments.document}: not a document of gpu.sh: it has no \"device\"", file=sys.stderr)
        return 1
    for name, figure in pictures(document):
        path = arguments.folder / f"{name}.{arguments.format}"
        figure.savefig(path, dpi=150)
        plt.close(figure)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
