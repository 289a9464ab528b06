"""Trains the small tokenizers under tests/text/data, one of each family the tests compare.

    python tests/text/train_small_tokenizers.py

The training text is made here from a fixed seed, so the same version of PyPI tokenizers (0.22) writes the
same files: nothing is downloaded and nothing is taken from a published model.
"""

import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

DATA = pathlib.Path(__file__).parent / "data"

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

WORDS = (
    "the of and to a in is it you that he was for on are with as I his they be at one have this from "
    "or had by hot but some what there we can out other were all your when up use word how said an "
    "each she which do their time if will way about many then them would write like so these her "
    "long make thing see him two has look more day could go come did my sound no most number who "
    "over know water than call first people may down side been now find any new work part take get "
    "place made live where after back little only round man year came show every good me give our "
    "under name very through just form much great think say help low line before turn cause same "
    "mean differ move right boy old too does tell sentence set three want air well also play small "
    "end put home read hand port large spell add even land here must big high such follow act why "
    "ask men change went light kind off need house picture try us again animal point mother world "
    "near build self earth father capital Norway Oslo Switzerland franc Geneva Finland Europe "
    "Austria German question answer paraphrase segment attention token language model returns "
    "naïve café façade Straße über señor año niño déjà vu smörgåsbord Ærø привет мир язык модель "
    "ответ вопрос γλώσσα λόγος κόσμος שלום עולם مرحبا بالعالم नमस्ते दुनिया 你好 世界 语言 模型 日本語 "
    "こんにちは 世界 カタカナ 한국어 안녕 세계 ไทย ภาษา 🙂 👍🏽 👩‍👩‍👧 don't we'll I'm they've it's you'd "
    "int return const std::vector<int> void foo(bar) { } #include def lambda: self.x += 1; "
    "https://example.org/a?b=c 3.14 1024 2026-11-22 x=y*z"
).split()


def corpus(seed, num_lines):
    random_source = random.Random(seed)
    weights = [1.0 / (i + 3) for i in range(len(WORDS))]
    lines = []
    for _ in range(num_lines):
        words = random_source.choices(WORDS, weights, k=random_source.randint(3, 18))
        words = [w.capitalize() if random_source.random() < 0.1 else w for w in words]
        separator = random_source.choice([" ", " ", " ", "  ", "\n", ", "])
        lines.append(separator.join(words) + random_source.choice([".", "!", "?", "\n", ""]))
    return lines


def save(tokenizer, name, merges_as_text):
    """Writes the file compactly; `merges_as_text` is the older of the two forms of merges."""
    document = json.loads(tokenizer.to_str())
    if merges_as_text:
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    path = DATA / name
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n",
                    encoding="utf-8")
    print(path.name, path.stat().st_size, "bytes,", tokenizer.get_vocab_size(), "tokens")


def special(*contents):
    return [AddedToken(c, special=True, normalized=False) for c in contents]


def llama3_like():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(3, 3000), trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>",
                                         "<|start_header_id|>", "<|end_header_id|>"))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A",
            special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))]),
    ])
    save(tokenizer, "llama3_like.json", merges_as_text=False)


def llama2_like():
    bytes_as_tokens = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # Words must not be joined while training; the finished file has no pre-tokenizer.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(corpus(2, 3000), trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<unk>", "<s>", "</s>"] + bytes_as_tokens,
        show_progress=False))
    document = json.loads(tokenizer.to_str())
    document["pre_tokenizer"] = None
    # The trainer made every byte token an added one; the published files have three added tokens.
    document["added_tokens"] = [
        {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, content in enumerate(["<unk>", "<s>", "</s>"])]
    document["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])
    save(tokenizer, "llama2_like.json", merges_as_text=True)


def metaspace_like():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(corpus(5, 1500), trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>"], show_progress=False))
    tokenizer.add_tokens([
        AddedToken("Oslo", single_word=True, normalized=True),
        AddedToken("<left>", lstrip=True, normalized=False),
        AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("ﬁne", normalized=True),
        AddedToken("  ", normalized=False),
    ])
    save(tokenizer, "metaspace_like.json", merges_as_text=False)


def gpt2_like():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(7, 1500), trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False))
    save(tokenizer, "gpt2_like.json", merges_as_text=True)


def main():
    DATA.mkdir(exist_ok=True)
    llama3_like()
    llama2_like()
    metaspace_like()
    gpt2_like()


if __name__ == "__main__":
    main()
