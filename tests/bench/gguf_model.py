#!/usr/bin/env python3
"""Writes a Llama model directory as a GGUF file of the same numbers, for llama_cpp_reference.py.

    python3 tests/bench/gguf_model.py --dtype bfloat16 --output build/bench/model-bfloat16.gguf

Matrices are stored in the dtype, norms in float32. The file has no tokenizer: the callers give
token ids. Needs: python3 -m pip install -r tests/bench/requirements.txt.
"""

import argparse
import json
import pathlib
import sys

import bench_common as common

DTYPES = ("float32", "bfloat16")
_LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}
_TOP_NAMES = {"model.embed_tokens.weight": "token_embd.weight",
              "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def import_packages():
    """(gguf, numpy)."""
    try:
        import gguf
        import numpy
    except ImportError as error:
        raise common.BenchError(f"{error}. Install what this script needs:\n"
                                "  python3 -m pip install -r tests/bench/requirements.txt"
                                ) from error
    return gguf, numpy


def read_safetensors(path, numpy):
    """Yields (name, float32 array). The format: 8 bytes of header length, JSON, data."""
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    data = numpy.memmap(path, mode="r", offset=8 + header_bytes)
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[begin:end]
        if entry["dtype"] == "F32":
            values = raw.view("<f4")
        elif entry["dtype"] == "F16":
            values = raw.view("<f2").astype("<f4")
        elif entry["dtype"] == "BF16":
            values = (raw.view("<u2").astype("<u4") << 16).view("<f4")
        else:
            raise common.BenchError(f"{path}: {name} has dtype {entry['dtype']}, which is not "
                                    "F32, F16 or BF16")
        yield name, numpy.asarray(values).reshape(entry["shape"])


def gguf_name(name):
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight."""
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    kind = _LAYER_NAMES.get(rest.removesuffix(".weight"))
    if kind is None or not layer.isdigit():
        raise common.BenchError(f"unexpected tensor {name}: only plain Llama models are supported")
    return f"blk.{layer}.{kind}.weight"


def interleave_rope(rows, head_count):
    """GGUF keeps the two rotary halves of a head interleaved; Hugging Face one after the other.
    `rows` is [heads * head_dim, hidden]."""
    head_dim = rows.shape[0] // head_count
    halves = rows.reshape(head_count, 2, head_dim // 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def add_configuration(writer, config, dtype, gguf):
    if config.get("rope_scaling"):
        raise common.BenchError("models with rope_scaling are not supported here")
    heads = config["num_attention_heads"]
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(theta)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if dtype == "bfloat16"
                         else gguf.LlamaFileType.ALL_F32)


def write_gguf(model, dtype, path):
    """Writes `path` whole or not at all."""
    gguf, numpy = import_packages()
    config_path = pathlib.Path(model) / "config.json"
    if not config_path.is_file():
        raise common.BenchError(f"{config_path} is not there: name a model with --model")
    config = json.loads(config_path.read_text(encoding="utf-8"))
    heads = {"attn_q.weight": config["num_attention_heads"],
             "attn_k.weight": config["num_key_value_heads"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, "llama")
    add_configuration(writer, config, dtype, gguf)
    for file in sorted(pathlib.Path(model).glob("*.safetensors")):
        for name, values in read_safetensors(file, numpy):
            name = gguf_name(name)
            for kind, head_count in heads.items():
                if name.endswith(kind):
                    values = interleave_rope(values, head_count)
            if dtype == "bfloat16" and values.ndim == 2:
                kind = gguf.GGMLQuantizationType.BF16
                writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, numpy.ascontiguousarray(values, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.replace(path)


def ensure_gguf(model, dtype):
    """The model's GGUF file in build/bench, made if it is not there or older than the weights."""
    path = common.ROOT / "build" / "bench" / f"{pathlib.Path(model).name}-{dtype}.gguf"
    newest = max((file.stat().st_mtime for file in pathlib.Path(model).glob("*.safetensors")),
                 default=0)
    if not path.is_file() or path.stat().st_mtime < newest:
        print(f"writing {path}", file=sys.stderr, flush=True)
        write_gguf(model, dtype, path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=pathlib.Path, default=common.DEFAULT_MODEL)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.gguf")
    arguments = parser.parse_args()
    write_gguf(arguments.model, arguments.dtype, arguments.output)
    print(f"wrote {arguments.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
