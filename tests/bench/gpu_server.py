"""The part `server` of gpu.sh: tokens a second through gRPC, with server_bench (server and clients in one process),
against the same engine in process and against the roofline; and of two GPUs against one."""

from gpu_programs import ROOT
from gpu_rooflines import roofline

MODEL = "llama-3.2-3b"
PROMPTS = 6
# Without a GPU: shows that script and results are right. Two workers stand for two GPUs.
HOST_SERVER = {"model": "tests/golden/models/tiny_mqa", "devices": "cpu", "threads": 1}
# Of kernels.md.
STREAMS_TARGET, SHARE_TARGET, TWO_GPUS_TARGET = 64, 0.6, 1.9


def _silent_seconds(_):
    return 75  # loading; then a round of a mode is a line


def _command(host, load, server):
    load = {"prompts": PROMPTS, **load}
    return [host.program("server_bench"), *(f"--{name}={value}" for name, value in load.items()), "--",
            *(f"--{name}={value}" for name, value in server.items())]


def _tokenizer(host):
    """Of a real model, where one is at hand: its texts are of a real length."""
    folders = (host.folder / "tokenizer", ROOT / "models" / "smollm2-135m-instruct", ROOT / "tests/golden/models/tiny_mha")
    return next(folder for folder in folders if (folder / "tokenizer.json").is_file())


def _gpu_server(host, devices):
    """As a server is set up for throughput: prompts are read in large steps."""
    return {"random_weights": MODEL, "model": _tokenizer(host), "devices": devices, "kv_cache_bytes": "16GiB",
            "max_step_rows": 8192, "prompt_share_rows": 8192}


def _load(host, streams, waves):
    if host.is_host:
        return {"streams": streams, "waves": waves, "prompt_tokens": 6, "max_new_tokens": 8, "rounds": 1}
    return {"streams": streams, "waves": waves, "prompt_tokens": 50, "max_new_tokens": 128,
            "rounds": 3 if host.is_quick else 5}


def _run(host, load, server, seconds):
    command = _command(host, load, server)
    document = host.run_json("server_bench", command, seconds, _silent_seconds)
    document["command"] = " ".join(map(str, ["server_bench", *command[1:]]))
    return document


def add_shares(document, copy_rate):
    """To each load the roofline of decoding in the middle of its answers, and every mode's share of it."""
    for load in document.get("loads", ()):
        keys = load["streams"] * (load["prompts"] * load["prompt_tokens"] + load["max_new_tokens"] // 2)
        limit = roofline(load["streams"], keys, document, copy_rate)
        load["roofline_tokens_per_second"] = limit
        for mode in load["modes"].values():
            mode["share_of_roofline"] = mode["decode_tokens_per_second"] / limit
            # All of a round, reading its prompts and its last answers' ends included.
            mode["share_of_roofline_with_prompts"] = mode["tokens_per_second"] / limit


def target_of(document):
    """That of a batch of 64 through gRPC; None if it was not measured."""
    for load in document.get("loads", ()):
        mode = load["modes"].get("generate", {})
        if load["streams"] == STREAMS_TARGET and "share_of_roofline" in mode:
            share = mode["share_of_roofline"]
            return {"streams": STREAMS_TARGET, "unit": "share of the roofline, decoding, through Generate",
                    "value": share, "must": SHARE_TARGET, "met": share >= SHARE_TARGET}
    return None


def compare(one, two):
    """Two devices (or workers) with twice the streams against one: the ratio of tokens a second through Generate."""
    rates = [document["loads"][0]["modes"]["generate"]["tokens_per_second"] if document.get("loads") else None
             for document in (one, two)]
    found = {"ok": all(rates), "one": one, "two": two}
    if all(rates):
        found["ratio"] = rates[1] / rates[0]
    return found


def two_devices(host, num_devices, seconds):
    """Sustained: waves of requests, the same number of streams a device."""
    if host.is_host:
        servers = [{**HOST_SERVER, "workers": workers} for workers in (1, 2)]
        streams = (2, 4)
    elif num_devices < 2:
        return {"ok": True, "not_run": f"needs two GPUs; here: {num_devices}"}
    else:
        other = 1 if host.device == 0 else 0
        servers = [_gpu_server(host, f"cuda:{host.device}"), _gpu_server(host, f"cuda:{host.device},cuda:{other}")]
        streams = (STREAMS_TARGET, 2 * STREAMS_TARGET)
    one, two = (_run(host, {**_load(host, count, 4), "mode": "generate"}, server, seconds / 2)
                for count, server in zip(streams, servers, strict=True))
    found = compare(one, two)
    if "ratio" in found and not host.is_host:
        found["target"] = {"unit": "times one GPU", "value": found["ratio"], "must": TWO_GPUS_TARGET,
                           "met": found["ratio"] >= TWO_GPUS_TARGET}
    return found


def measure(host, copy_rate, num_devices, seconds):
    if host.is_host:
        document = _run(host, _load(host, "2,1", 1), HOST_SERVER, seconds)
    else:
        # The target's load first.
        streams = STREAMS_TARGET if host.is_quick else f"{STREAMS_TARGET},1,{2 * STREAMS_TARGET}"
        document = _run(host, _load(host, streams, 1), _gpu_server(host, f"cuda:{host.device}"), seconds)
    if copy_rate and "loads" in document:
        add_shares(document, copy_rate)
        document["target"] = target_of(document)
    document["two_devices"] = two_devices(host, num_devices, seconds)
    document["ok"] = document["ok"] and document["two_devices"]["ok"]
    return document
