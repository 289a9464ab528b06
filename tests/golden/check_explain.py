#!/usr/bin/env python3
"""Compares the Explain RPC of a real server with Transformers' attentions, end to end.

    python check_explain.py [--model DIR] [--bin build/release/bin]

Starts chorus-server in float32, asks `chorus explain --json` three questions, all layers and heads,
and runs each whole sequence once more through Transformers (eager, float32) under a dense mask made
of the answer's mask runs. Prints the largest difference of mass and of mean logits; exit code 1 if
one is above 1e-3. Needs what requirements.txt lists.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

from make_probes import EagerModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 1e-3
QUESTIONS = [
    ["What is the capital of France?", "Name the capital city of France.",
     "Which city is the capital of France?"],
    ["Why is the sky blue?", "What makes the sky appear blue?"],
    ["Who wrote Hamlet?", "Name the author of Hamlet.", "Hamlet was written by whom?",
     "Which playwright wrote Hamlet?"],
]


def dense_mask(answer):
    length = answer["layout"]["length"]
    allowed = torch.zeros(length, length, dtype=torch.bool)
    for run in answer["mask_runs"]:
        rows = slice(run["rows"]["begin"], run["rows"]["end"])
        for keys in run["keys"]:
            allowed[rows, keys["begin"]:keys["end"]] = True
    return allowed.tril()


def keys_of_units(answer):
    """The key indexes of each unit, in the order of answer["units"]."""
    layout = answer["layout"]
    of_prompt = {prompt: range(s["begin"], s["end"])
                 for prompt, s in zip(layout["prompt_indexes"], layout["segments"])}
    fixed = {"prefix": range(layout["prefix_length"]),
             "suffix": range(layout["original_length"], layout["prompt_length"]),
             "generated": range(layout["prompt_length"], layout["length"])}
    return [np.array(of_prompt[u["prompt_index"]] if u["kind"] == "segment" else fixed[u["kind"]])
            for u in answer["units"]]


def largest_differences(answer, model):
    """(mass, logits) over all layers, heads, steps and units."""
    layout = answer["layout"]
    allowed = dense_mask(answer)
    _, masses, logits = model.run(layout["token_ids"], layout["positions"], allowed)
    units = keys_of_units(answer)
    worst = [0.0, 0.0]
    for layer in answer["layers"]:
        shape = (len(answer["steps"]), len(answer["heads"]), len(units))
        found = [np.array([math.nan if x is None else x for x in layer[name]]).reshape(shape)
                 for name in ("mass", "logits")]
        for s, step in enumerate(answer["steps"]):
            row = layout["prompt_length"] - 1 + step
            for u, keys in enumerate(units):
                seen = keys[allowed[row].numpy()[keys]]
                mass = masses[layer["layer"]][answer["heads"], row][:, seen].sum(axis=1)
                worst[0] = max(worst[0], np.abs(found[0][s, :, u] - mass).max())
                if seen.size:
                    mean = logits[layer["layer"]][answer["heads"], row][:, seen].mean(axis=1)
                    worst[1] = max(worst[1], np.abs(found[1][s, :, u] - mean).max())
    return worst


def explain(binaries, port, prompts):
    command = [binaries / "chorus", "explain", f"--server=127.0.0.1:{port}", prompts[0], "--json",
               "--steps=0,1,5", "--max_new_tokens=8", "--ignore_eos"]
    command += [f"--paraphrase={text}" for text in prompts[1:]]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def start_server(binaries, model, folder):
    ports = pathlib.Path(folder) / "ports.json"
    server = subprocess.Popen(
        [binaries / "chorus-server", f"--model={model}", "--dtype=float32", "--listen=127.0.0.1:0",
         "--metrics_listen=127.0.0.1:0", f"--port_file={ports}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if ports.exists() and ports.read_text():
            return server, json.loads(ports.read_text())["grpc"]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    raise SystemExit("chorus-server did not serve")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/smollm2-135m-instruct")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    arguments = parser.parse_args()
    model = EagerModel(arguments.model)
    is_close = True
    with tempfile.TemporaryDirectory() as folder:
        server, port = start_server(arguments.bin, arguments.model, folder)
        try:
            for prompts in QUESTIONS:
                mass, logits = largest_differences(explain(arguments.bin, port, prompts), model)
                print(f"{prompts[0]}: mass {mass:.1e}, logits {logits:.1e}")
                is_close = is_close and max(mass, logits) <= LIMIT
        finally:
            server.terminate()
            server.wait()
    return 0 if is_close else 1


if __name__ == "__main__":
    sys.exit(main())
