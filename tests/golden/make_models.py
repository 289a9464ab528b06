#!/usr/bin/env python3
"""Makes the tiny random models under tests/golden/models: seeded, deterministic.

Each is a whole Hugging Face directory (config.json, model.safetensors, tokenizer files), small
enough to commit. Weights are rounded to the stored type, so every type loads to the same values
everywhere. Gains are chosen so that attention is peaked and logits are spread: a model of the
usual initialisation attends almost uniformly and would hide mask errors.

    python make_models.py [NAME ...]
"""

import json
import pathlib
import sys

import safetensors.torch
import torch

MODELS = pathlib.Path(__file__).resolve().parent / "models"
VOCABULARY = 300
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
MERGES = ("Ġ t|h e|i n|e r|Ġ a|o n|r e|Ġt he|a t|e n|o r|Ġ s|Ġ w|Ġ c|i s|Ġ o|n d|Ġ b|a l|Ġo f|"
          "e s|Ġ p|Ġ f|in g|i t|a n|Ġ d|a r|Ġa nd|Ġ in|e d|o u|Ġt o|Ġ m|l e|r o|i c|Ġ h|a s|"
          "o m").split("|")
CHAT_TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                 "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

# name -> (seed, stored type, settings of config.json)
SHAPES = {
    "tiny_mha": (101, torch.bfloat16, dict(
        hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=4,
        head_dim=16, rope_theta=10000.0, tie_word_embeddings=True)),
    "tiny_gqa": (102, torch.bfloat16, dict(
        hidden_size=64, intermediate_size=96, num_attention_heads=6, num_key_value_heads=2,
        head_dim=32, rope_theta=10000.0, tie_word_embeddings=False)),
    "tiny_mqa": (103, torch.float32, dict(
        hidden_size=48, intermediate_size=64, num_attention_heads=4, num_key_value_heads=1,
        head_dim=64, rope_theta=100000.0, tie_word_embeddings=True)),
    "tiny_llama3_rope": (104, torch.float16, dict(
        hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, rope_theta=500000.0, tie_word_embeddings=False,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                          high_freq_factor=4.0, original_max_position_embeddings=64))),
    "tiny_bias": (105, torch.bfloat16, dict(
        hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
        rope_parameters=dict(rope_type="default", rope_theta=50000.0))),
    # Layers with windows, all of them shorter than the prompts.
    "tiny_mistral": (106, torch.bfloat16, dict(
        model_type="mistral", hidden_size=48, intermediate_size=96, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, rope_theta=10000.0, tie_word_embeddings=True,
        sliding_window=7)),
    "tiny_hybrid": (107, torch.bfloat16, dict(
        model_type="qwen2", hidden_size=48, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, rope_theta=20000.0,
        tie_word_embeddings=True, use_sliding_window=True, sliding_window=6, max_window_layers=0,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "tiny_chunked": (108, torch.bfloat16, dict(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, rope_theta=10000.0, tie_word_embeddings=True,
        attention_chunk_size=5, sliding_window=9,
        layer_types=["chunked_attention", "sliding_attention", "full_attention"])),
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
                 "qwen2": "Qwen2ForCausalLM"}


def configuration(dtype, settings):
    model_type = settings.get("model_type", "llama")
    biases = {"attention_bias": False, "mlp_bias": False} if model_type == "llama" else {}
    return {
        "architectures": [ARCHITECTURES[model_type]], "model_type": model_type,
        "hidden_act": "silu",
        "vocab_size": VOCABULARY, "num_hidden_layers": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
        **biases, "torch_dtype": str(dtype).split(".")[1],
        **settings,
    }


def random_weights(config, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q_rows = config["num_attention_heads"] * config["head_dim"]
    kv_rows = config["num_key_value_heads"] * config["head_dim"]

    def normal(*shape, deviation):
        return torch.randn(*shape, generator=generator) * deviation

    def linear(weights, name, rows, columns, gain, bias):
        weights[f"{name}.weight"] = normal(rows, columns, deviation=gain / columns**0.5)
        if bias:
            weights[f"{name}.bias"] = normal(rows, deviation=0.3)

    weights = {"model.embed_tokens.weight": normal(VOCABULARY, hidden, deviation=3 / hidden**0.5)}
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{base}.{norm}.weight"] = 1 + normal(hidden, deviation=0.2)
        output_bias = config.get("attention_bias", False)
        bias = output_bias or config["model_type"] == "qwen2"
        linear(weights, f"{base}.self_attn.q_proj", q_rows, hidden, 1.6, bias)
        linear(weights, f"{base}.self_attn.k_proj", kv_rows, hidden, 1.6, bias)
        linear(weights, f"{base}.self_attn.v_proj", kv_rows, hidden, 1.5, bias)
        linear(weights, f"{base}.self_attn.o_proj", hidden, q_rows, 2.5, output_bias)
        bias = config.get("mlp_bias", False)
        linear(weights, f"{base}.mlp.gate_proj", inner, hidden, 1.0, bias)
        linear(weights, f"{base}.mlp.up_proj", inner, hidden, 1.0, bias)
        linear(weights, f"{base}.mlp.down_proj", hidden, inner, 2.5, bias)
    weights["model.norm.weight"] = 1 + normal(hidden, deviation=0.2)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = normal(VOCABULARY, hidden, deviation=3 / hidden**0.5)
    return weights


def byte_alphabet():
    """The 256 characters that stand for bytes in byte-level BPE, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    spelled = {byte: chr(byte) for byte in printable}
    spelled.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return [spelled[byte] for byte in range(256)]


def tokenizer():
    tokens = SPECIAL_TOKENS + byte_alphabet() + [merge.replace(" ", "") for merge in MERGES]
    assert len(set(tokens)) == len(tokens) == VOCABULARY
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [dict(id=i, content=token, **flags)
                         for i, token in enumerate(SPECIAL_TOKENS)],
        "pre_tokenizer": dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True,
                              use_regex=True),
        "post_processor": None,
        "decoder": dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True,
                        use_regex=True),
        "model": dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                      end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                      ignore_merges=False, vocab={token: i for i, token in enumerate(tokens)},
                      merges=MERGES),
    }


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def make_model(name):
    seed, dtype, settings = SHAPES[name]
    directory = MODELS / name
    directory.mkdir(parents=True, exist_ok=True)
    config = configuration(dtype, settings)
    write_json(directory / "config.json", config)
    write_json(directory / "tokenizer.json", tokenizer())
    write_json(directory / "tokenizer_config.json", {
        "add_bos_token": False, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>", "unk_token": "<|endoftext|>", "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False, "model_max_length": 512,
        "tokenizer_class": "GPT2Tokenizer"})
    weights = {key: value.to(dtype) for key, value in random_weights(config, seed).items()}
    safetensors.torch.save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def main():
    for name in sys.argv[1:] or SHAPES:
        directory = make_model(name)
        print(f"{directory.relative_to(MODELS)}: "
              f"{(directory / 'model.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
