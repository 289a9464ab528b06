"""Proves that core/text gives the ids and texts of PyPI tokenizers.

    python tests/text/tokenizer_parity.py PATH/TO/text_tokenize_lines [--strings=N] [--seed=N] [FILE...]

Every tokenizer (the small ones of tests/text/data and the default model's) encodes the same generated
strings with both programs: all scripts, emoji, code, control characters, broken UTF-8, white space runs,
contractions, digits, very long words, special tokens' spellings, and every code point there is. Ids,
decoded texts and what random ids decode to must be equal. Prints MB per processor second of both, one
thread each (the reference's includes its Python calls and the offsets it always computes).
"""

import argparse
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
try:
    import tokenizers
except ImportError:
    sys.exit("tokenizer_parity.py needs PyPI tokenizers: pip install tokenizers==0.22.*")

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "text" / "data"
DEFAULT_MODEL = ROOT / "models" / "smollm2-135m-instruct" / "tokenizer.json"

SCRIPTS = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x250, 0x2AF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x74F), (0x900, 0x97F), (0x980, 0x9FF),
    (0xB80, 0xBFF), (0xE00, 0xE7F), (0xF00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x10FF),
    (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1780, 0x17FF), (0x1800, 0x18AF),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20CF), (0x2100, 0x218F),
    (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x2E80, 0x2FDF), (0x3000, 0x30FF),
    (0x3130, 0x318F), (0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xA000, 0xA4CF), (0xAC00, 0xD7A3),
    (0xE000, 0xE0FF), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFE0F), (0xFE70, 0xFEFF),
    (0xFF00, 0xFFEF), (0x10000, 0x100FF), (0x10330, 0x1034F), (0x10400, 0x1044F), (0x12000, 0x123FF),
    (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x1F000, 0x1FAFF), (0x20000, 0x2A6DF), (0x30000, 0x3134F),
    (0xE0000, 0xE007F),
]
EMOJI = ["🙂", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇳🇴", "❤️", "1️⃣", "👨🏿‍💻", "☕️", "🫠", "\u200d", "\ufe0f"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'LL", "’s", "'ſ", "' s"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n ", "\u00a0", "\u2003", "\u3000",
          "\u180e", "\u200b", "\u2028", "\x0b", "\x0c", "\x85", "\u1680", "▁", "▁▁"]
SPELLINGS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<s>",
             "</s>", "<unk>", "<0x0A>", "<0xE2>", "<left>", "<right>", "Oslo", "Oslos", "ﬁne", "fine",
             "<|im_", "start|>", "<repo_name>"]
CODE = ["int main() {\n\treturn 0;\n}", "def f(x):\n    return x**2  # square\n", "a += b[i] - (c<<2);",
        "<div class=\"x\">&nbsp;</div>", "SELECT * FROM t WHERE a='b';", "{\"k\": [1, 2.5e-3, null]}",
        "https://a.b/c?d=e&f=%20#g", "$\\frac{1}{2}$", "x == y && !z || w", "/* ... */", "std::move(a)"]


def make_part(r):
    kind = r.randrange(13)
    if kind <= 1:
        low, high = r.choice(SCRIPTS)
        return "".join(chr(r.randint(low, high)) for _ in range(r.randint(1, 10)))
    if kind == 2:
        return r.choice(EMOJI) * r.randint(1, 3)
    if kind == 3:
        return "".join(r.choice(SPACES) for _ in range(r.randint(1, 5)))
    if kind == 4:
        return r.choice(["don", "we", "I", "they", "IT", "é"]) + r.choice(CONTRACTIONS)
    if kind == 5:
        return "".join(r.choice("0123456789٣५౩½²Ⅷ㉈") for _ in range(r.randint(1, 9)))
    if kind == 6:
        return r.choice(CODE)
    if kind == 7:
        return r.choice(SPELLINGS)
    if kind == 8:
        return "".join(chr(r.choice([0, 1, 7, 8, 9, 10, 13, 27, 31, 127, 128, 133, 159, 173]))
                       for _ in range(r.randint(1, 4)))
    if kind == 9:
        return chr(r.choice([r.randrange(0xD800), r.randrange(0xE000, 0x110000)]))
    if kind == 10:
        base = r.choice("aeiouAnoc가ㄱक")
        return base + "".join(chr(r.randint(0x300, 0x36F)) for _ in range(r.randint(1, 4)))
    letters = "etaoinshrdlucmfwypvbgkqjxz" if kind == 11 else "ETAOINéßøñçåΩжя"
    return "".join(" " * (i > 0) + "".join(r.choice(letters) for _ in range(r.randint(1, 9)))
                   for i in range(r.randint(1, 5)))


def make_texts(seed, count):
    """`count` byte strings or a few more; some are not UTF-8."""
    r = random.Random(seed)
    texts = [b"", b" ", b"\n", b"a" * 100000, b" " * 5000, "é".encode() * 5000, b"ab" * 5000,
             b"1" * 3000, "語".encode() * 3000, b"\n" * 3000, b"=" * 3000, b"\xff" * 300,
             b"word " * 2000, b"x" * 2999 + b" " * 1000 + b"y"]
    for first in range(0, 0x110000, 64):  # every code point there is
        codes = [c for c in range(first, first + 64) if not 0xD800 <= c < 0xE000]
        texts.append("".join(map(chr, codes)).encode())
        texts.append(" a".join(map(chr, codes[::9])).encode())
    while len(texts) < count:
        text = "".join(r.choice(["", " "]) + make_part(r) for _ in range(r.randint(1, 8)))
        if r.random() < 0.02:
            text = unicodedata.normalize(r.choice(["NFD", "NFKD", "NFC"]), text)
        data = text.encode()
        if r.random() < 0.1:  # break the UTF-8
            data = bytearray(data)
            for _ in range(r.randint(1, 4)):
                at = r.randrange(len(data) + 1)
                data[at:at + r.randint(0, 1)] = bytes([r.randrange(256)])
            data = bytes(data)
        texts.append(data)
    return texts


def run_chorus(program, path, mode, texts, folder):
    """(ids, decoded text) of every text; bytes per second."""
    source, result = folder / "texts", folder / "ids"
    source.write_bytes(b"".join(struct.pack("<I", len(t)) + t for t in texts))
    done = subprocess.run([program, str(path), mode, str(source), str(result)],
                          stdout=subprocess.PIPE, check=True, text=True)
    num_bytes, seconds = done.stdout.split()
    data, at, answers = result.read_bytes(), 0, []
    for _ in texts:
        (count,) = struct.unpack_from("<I", data, at)
        ids = list(struct.unpack_from("<%di" % count, data, at + 4))
        at += 4 + 4 * count
        (length,) = struct.unpack_from("<I", data, at)
        answers.append((ids, data[at + 4:at + 4 + length].decode()))
        at += 4 + length
    assert at == len(data), "the answer has bytes left over"
    return answers, int(num_bytes) / float(seconds)


def run_reference(tokenizer, texts):
    strings = [t.decode("utf-8", errors="replace") for t in texts]
    start = time.process_time()
    encodings = [tokenizer.encode(s, add_special_tokens=False) for s in strings]
    seconds = time.process_time() - start
    ids = [e.ids for e in encodings]
    return [(i, tokenizer.decode(i, skip_special_tokens=True)) for i in ids], (
        sum(map(len, texts)) / seconds)


def compare(program, path, mode, texts, folder):
    """The number of texts whose ids or decoded texts differ; prints the first few."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = mode == "plain"
    ours, our_speed = run_chorus(program, path, mode, texts, folder)
    theirs, their_speed = run_reference(tokenizer, texts)
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    for i in wrong[:5]:
        part = "ids" if ours[i][0] != theirs[i][0] else "decoded text"
        at = next((k for k, (a, b) in enumerate(zip(ours[i][0], theirs[i][0])) if a != b), -1)
        print(f"  {part} differ: {ascii(texts[i][:200])}\n    at id {at}; chorus    {ours[i][0][:40]}"
              f" {ascii(ours[i][1][:80])}\n    reference {theirs[i][0][:40]} {ascii(theirs[i][1][:80])}")
    name = path.parent.name if path.name == "tokenizer.json" else path.name
    print(f"{name} {mode}: {len(texts)} strings, {len(wrong)} differ; "
          f"chorus {our_speed / 1e6:.1f} MB/s, tokenizers {their_speed / 1e6:.1f} MB/s", flush=True)
    return len(wrong)


def compare_decoding(program, path, seed, folder):
    """The number of random id lists that decode to different texts; low ids, single bytes, abound."""
    r = random.Random(seed)
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    size = tokenizer.get_vocab_size()
    lists = [[r.randrange(r.choice([300, size])) for _ in range(r.randrange(30))]
             for _ in range(5000)]
    data = [struct.pack("<%di" % len(ids), *ids) for ids in lists]
    answers, _ = run_chorus(program, path, "decode", data, folder)
    wrong = [i for i, ids in enumerate(lists)
             if answers[i] != (ids, tokenizer.decode(ids, skip_special_tokens=True))]
    for i in wrong[:5]:
        print(f"  decoded text differs: {lists[i]}\n    chorus    {ascii(answers[i][1])}\n"
              f"    reference {ascii(tokenizer.decode(lists[i], skip_special_tokens=True))}")
    print(f"  {len(lists)} random id lists decoded, {len(wrong)} differ", flush=True)
    return len(wrong)


def measure(program, path, seed, folder):
    """MB/s on long plain documents, the ordinary case."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from train_small_tokenizers import corpus
    documents = ["\n".join(corpus(seed + i, 300)).encode() for i in range(30)]
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    ours, our_speed = run_chorus(program, path, "recognize", documents, folder)
    theirs, their_speed = run_reference(tokenizer, documents)
    name = path.parent.name if path.name == "tokenizer.json" else path.name
    print(f"{name} long documents: chorus {our_speed / 1e6:.1f} MB/s, "
          f"tokenizers {their_speed / 1e6:.1f} MB/s", flush=True)
    return int(ours != theirs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--strings", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=20261123)
    arguments = parser.parse_args()
    files = arguments.files or sorted(DATA.glob("*.json"))
    if not arguments.files:
        if DEFAULT_MODEL.exists():
            files.append(DEFAULT_MODEL)
        else:
            print(f"LEFT OUT: {DEFAULT_MODEL} is not there (scripts/convert_default_model.py makes it)")
    print(f"tokenizers {tokenizers.__version__}, seed {arguments.seed}", flush=True)
    texts = make_texts(arguments.seed, arguments.strings)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            for mode in ("recognize", "plain"):
                failures += compare(arguments.program, path, mode, texts, pathlib.Path(folder))
            failures += compare_decoding(arguments.program, path, arguments.seed,
                                         pathlib.Path(folder))
            failures += measure(arguments.program, path, arguments.seed, pathlib.Path(folder))
    if not files or failures:
        sys.exit(f"FAILED: {failures} differences in {len(files)} tokenizers")


if __name__ == "__main__":
    main()
