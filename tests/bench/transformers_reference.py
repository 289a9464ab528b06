#!/usr/bin/env python3
"""The comparator: every fusion method done sensibly with Transformers, in float32 or bfloat16.

    python transformers_reference.py --model DIR --qa FILE [--questions 20] [--max-new-tokens 16]
        [--threads 2] [--methods NAME ...] [--output FILE]            speed, JSON
    python transformers_reference.py --model DIR --qa FILE --accuracy ANSWERS.jsonl
        [--questions 80] [--methods NAME ...]                         accuracy, JSON, and answers
    python transformers_reference.py --model DIR --qa FILE --serve    for eval_speed.py: see serve()

"Sensibly": a KV cache everywhere; ATTENTION encodes the fused sequence once under the segment mask
and decodes one row a step; the other methods run a left-padded batch of all prompts; only the last
row's logits are computed. Each method runs in a process of its own, so that its peak memory is its
own. Frame: five examples as shared prefix, "Q: {prompt}" as segment, "\\nA:" as suffix. Speed runs
ignore the end-of-sequence token, so that exactly max-new-tokens are made; accuracy runs stop at it
or at the first line's end.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import pathlib
import platform
import resource
import sys
import time
import unicodedata

FEW_SHOT = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in (
    ("What is the capital of Norway?", "Oslo"), ("Name the currency of Switzerland.", "Franc"),
    ("Which country is Geneva in?", "Switzerland"), ("On which continent is Finland?", "Europe"),
    ("Tell me the main language of Austria.", "German")))
SEGMENT, SUFFIX = "Q: {}", "\nA:"
ACCURACY_TOKENS = 12
WARM_UP_QUESTIONS = 2


@dataclasses.dataclass
class Pieces:
    """Token ids of one question's prompt."""

    prefix: list
    segments: list
    suffix: list


@dataclasses.dataclass
class Timing:
    prompt_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_steps: int = 0
    decode_seconds: float = 0.0
    new_tokens: int = 0


class Engine:
    """The model and the four ways in which prompts become answers."""

    def __init__(self, directory, threads, max_new_tokens, dtype="float32"):
        import tokenizers
        import torch
        import transformers

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._torch, self._transformers = torch, transformers
        self._dtype = getattr(torch, dtype)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=self._dtype, attn_implementation="sdpa").eval()
        self._tokenizer = tokenizers.Tokenizer.from_file(
            str(pathlib.Path(directory) / "tokenizer.json"))
        self._eos_id = self._model.config.eos_token_id
        self._max_new_tokens = max_new_tokens
        self._stop_early = False
        self.timing = Timing()

    def stop_early(self):
        """From now on an answer ends at the end-of-sequence token or at its first line's end."""
        self._stop_early = True

    def encode(self, text):
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def pieces(self, prompts):
        return Pieces(self.encode(FEW_SHOT),
                      [self.encode(SEGMENT.format(prompt)) for prompt in prompts],
                      self.encode(SUFFIX))

    def first_line(self, tokens):
        if self._eos_id in tokens:
            tokens = tokens[:tokens.index(self._eos_id)]
        return self._tokenizer.decode(tokens, skip_special_tokens=False).split("\n")[0]

    def _finished(self, tokens):
        if len(tokens) >= self._max_new_tokens:
            return True
        return self._stop_early and (tokens[-1] == self._eos_id
                                     or "\n" in self._tokenizer.decode([tokens[-1]]))

    # --- ATTENTION: one sequence, segment mask ---

    def _fused_inputs(self, pieces, overlapping):
        """(tokens, positions, additive mask [1, 1, length, length])."""
        torch = self._torch
        tokens, positions, owners = list(pieces.prefix), list(range(len(pieces.prefix))), []
        owners += [-1] * len(tokens)
        for index, segment in enumerate(pieces.segments):
            start = len(pieces.prefix) if overlapping else len(tokens)
            positions += range(start, start + len(segment))
            tokens += segment
            owners += [index] * len(segment)
        original_length = len(tokens)
        start = max(positions) + 1
        positions += range(start, start + len(pieces.suffix))
        tokens += pieces.suffix
        owners += [-2] * len(pieces.suffix)

        owner, rows = torch.tensor(owners), torch.arange(len(tokens))
        sees = (rows[:, None] >= original_length) | (owner[:, None] == owner) | (owner == -1)
        allowed = sees & (rows[:, None] >= rows)
        mask = torch.where(allowed, 0.0, torch.finfo(self._dtype).min)[None, None].to(self._dtype)
        return tokens, positions, mask

    def attention(self, pieces, overlapping):
        torch = self._torch
        cache = self._transformers.DynamicCache()
        begin = time.perf_counter()
        tokens, positions, mask = self._fused_inputs(pieces, overlapping)
        logits = self._model(input_ids=torch.tensor([tokens]),
                             position_ids=torch.tensor([positions]), attention_mask=mask,
                             past_key_values=cache, logits_to_keep=1).logits[0, -1]
        answer = [int(logits.argmax())]
        prefilled = time.perf_counter()
        position = max(positions) + 1
        while not self._finished(answer):
            # One row that sees everything: no mask is needed.
            logits = self._model(input_ids=torch.tensor([[answer[-1]]]),
                                 position_ids=torch.tensor([[position]]),
                                 past_key_values=cache).logits[0, -1]
            answer.append(int(logits.argmax()))
            position += 1
        self._note(len(tokens), begin, prefilled, steps=len(answer) - 1, made=len(answer))
        return [answer], None

    # --- Padded batch of prompts ---

    def batch(self, pieces, combine):
        """`combine`: rows [prompts, vocabulary] -> one row, appended to every prompt; None: every
        prompt goes its own way. Returns (answers, mean log-probability of each or None)."""
        torch = self._torch
        prompts = [pieces.prefix + segment + pieces.suffix for segment in pieces.segments]
        cache = self._transformers.DynamicCache()
        begin = time.perf_counter()
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        tokens = torch.tensor([[0] * pad + prompt for pad, prompt in zip(padding, prompts)])
        mask = torch.tensor([[0] * pad + [1] * len(prompt)
                             for pad, prompt in zip(padding, prompts)])
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        answers = [[] for _ in prompts]
        sums = [0.0] * len(prompts)
        steps = -1
        prefilled = None
        while not all(answer and self._finished(answer) for answer in answers):
            logits = self._model(input_ids=tokens, position_ids=positions, attention_mask=mask,
                                 past_key_values=cache, logits_to_keep=1).logits[:, -1]
            chosen = self._choose(logits, combine, answers, sums)
            prefilled = prefilled or time.perf_counter()
            steps += 1
            tokens = torch.tensor(chosen)[:, None]
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
        made = sum(map(len, answers)) if combine is None else len(answers[0])
        self._note(sum(map(len, prompts)), begin, prefilled, steps, made)
        means = [total / len(answer) for total, answer in zip(sums, answers)]
        return (answers, means) if combine is None else (answers[:1], None)

    def _choose(self, logits, combine, answers, sums):
        """Appends the next token to every unfinished answer; returns one token per prompt."""
        torch = self._torch
        if combine is not None:
            chosen = [int(combine(torch, logits).argmax())] * len(answers)
        else:
            chosen = logits.argmax(dim=-1).tolist()
            best = torch.log_softmax(logits, dim=-1).amax(dim=-1).tolist()
        for index, answer in enumerate(answers):
            if answer and self._finished(answer):
                continue
            answer.append(chosen[index])
            if combine is None:
                sums[index] += best[index]
        return chosen

    def one_by_one(self, pieces):
        answers = [self.batch(Pieces(pieces.prefix, [segment], pieces.suffix), None)[0][0]
                   for segment in pieces.segments]
        return answers, None

    def _note(self, prompt_tokens, begin, prefilled, steps, made):
        timing, now = self.timing, time.perf_counter()
        timing.prompt_tokens += prompt_tokens
        timing.prefill_seconds += prefilled - begin
        timing.decode_steps += steps
        timing.decode_seconds += now - prefilled
        timing.new_tokens += made


def _logit_mean(torch, rows):
    return rows.mean(dim=0)


def _prob_mean(torch, rows):
    return torch.softmax(rows, dim=-1).mean(dim=0)


def _prob_max(torch, rows):
    return torch.softmax(rows, dim=-1).amax(dim=0)


def _logit_max(torch, rows):
    return rows.amax(dim=0)


def normalised(line):
    """The vote's form of an answer: NFKC, lower case, outer space and final punctuation off."""
    line = unicodedata.normalize("NFKC", line).lower().strip()
    while line and (line[-1].isspace() or unicodedata.category(line[-1]).startswith("P")):
        line = line[:-1]
    return line


def _vote(engine, pieces):
    answers, means = engine.batch(pieces, None)
    groups = {}
    for index, answer in enumerate(answers):
        groups.setdefault(normalised(engine.first_line(answer)), []).append(index)
    members = max(groups.values(), key=lambda group: (len(group), max(means[i] for i in group)))
    return [answers[max(members, key=lambda i: means[i])]], None


METHODS = {
    "attention": lambda engine, pieces: engine.attention(pieces, overlapping=True),
    "attention_sequential": lambda engine, pieces: engine.attention(pieces, overlapping=False),
    "logit_mean": lambda engine, pieces: engine.batch(pieces, _logit_mean),
    "prob_mean": lambda engine, pieces: engine.batch(pieces, _prob_mean),
    "prob_max": lambda engine, pieces: engine.batch(pieces, _prob_max),
    "logit_max": lambda engine, pieces: engine.batch(pieces, _logit_max),
    "per_prompt": lambda engine, pieces: engine.batch(pieces, None),
    "per_prompt_one_by_one": lambda engine, pieces: engine.one_by_one(pieces),
    "vote": _vote,
    "question_alone": lambda engine, pieces: engine.batch(
        Pieces(pieces.prefix, pieces.segments[:1], pieces.suffix), None),
}


def peak_rss_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_questions(path, count):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def prompts_of(question):
    return [question["question"], *question["paraphrases"]]


def measure_speed(method, arguments):
    questions = read_questions(arguments.qa, arguments.questions)
    engine = Engine(arguments.model, arguments.threads, arguments.max_new_tokens, arguments.dtype)
    all_pieces = [engine.pieces(prompts_of(question)) for question in questions]
    for pieces in all_pieces[:WARM_UP_QUESTIONS]:
        METHODS[method](engine, pieces)
    engine.timing = Timing()
    for pieces in all_pieces:
        METHODS[method](engine, pieces)
    timing, count = engine.timing, len(questions)
    return {
        "method": method, "questions": count, "max_new_tokens": arguments.max_new_tokens,
        "prompt_tokens_per_question": timing.prompt_tokens / count,
        "prefill_tokens_per_second": timing.prompt_tokens / timing.prefill_seconds,
        "decode_steps_per_second": timing.decode_steps / timing.decode_seconds,
        "tokens_per_second": timing.new_tokens / (timing.prefill_seconds + timing.decode_seconds),
        "time_to_first_token_seconds": timing.prefill_seconds / count,
        "seconds_per_question": (timing.prefill_seconds + timing.decode_seconds) / count,
        "peak_rss_mib": peak_rss_mib(),
    }


def is_right(line, gold_answers):
    return any(gold.lower() in line.lower() for gold in gold_answers)


def measure_accuracy(method, arguments):
    """Returns (summary, one record a question)."""
    questions = read_questions(arguments.qa, arguments.questions)
    engine = Engine(arguments.model, arguments.threads, ACCURACY_TOKENS, arguments.dtype)
    engine.stop_early()
    records = []
    for question in questions:
        answers, _ = METHODS[method](engine, engine.pieces(prompts_of(question)))
        lines = [engine.first_line(answer) for answer in answers]
        right = [is_right(line, question["answers"]) for line in lines]
        records.append({"method": method, "id": question["id"], "answers": lines, "right": right,
                        "score": sum(right) / len(right)})
    scores = [record["score"] for record in records]
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)
    return {"method": method, "questions": len(records), "accuracy": mean,
            "standard_error": math.sqrt(variance / len(scores))}, records


def serve(arguments):
    """Answers a line {"method", "begin", "end"} on standard input, questions of --qa, with a line
    {"seconds", "lines": [[an answer's first line] of a question]}, until the input ends. Answers
    stop early and have at most ACCURACY_TOKENS tokens."""
    questions = read_questions(arguments.qa, None)
    engine = Engine(arguments.model, arguments.threads, ACCURACY_TOKENS, arguments.dtype)
    engine.stop_early()
    print(json.dumps({"ready": arguments.dtype}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        begin = time.perf_counter()
        # Tokenising counts: the server does it too.
        answers = [METHODS[wanted["method"]](engine, engine.pieces(prompts_of(question)))[0]
                   for question in questions[wanted["begin"]:wanted["end"]]]
        seconds = time.perf_counter() - begin
        lines = [[engine.first_line(answer) for answer in each] for each in answers]
        print(json.dumps({"seconds": seconds, "lines": lines}), flush=True)


def in_own_process(function, method, arguments):
    """Spawned, so that the peak memory read there is the method's own."""
    with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, method, arguments).result()


def environment(arguments):
    from importlib.metadata import version

    return {"torch": version("torch"), "transformers": version("transformers"),
            "python": platform.python_version(), "machine": platform.machine(),
            "threads": arguments.threads, "dtype": arguments.dtype, "model": str(arguments.model)}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--qa", required=True, type=pathlib.Path)
    parser.add_argument("--questions", type=int, default=None, help="20; for accuracy 80")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--serve", action="store_true", help="answer what stdin asks for")
    parser.add_argument("--accuracy", type=pathlib.Path, metavar="ANSWERS.jsonl")
    parser.add_argument("--output", type=pathlib.Path, help="default: standard output")
    arguments = parser.parse_args()
    if arguments.questions is None:
        arguments.questions = 80 if arguments.accuracy else 20
    return arguments


def main():
    arguments = parse_arguments()
    if arguments.serve:
        serve(arguments)
        return 0
    results, records = [], []
    for method in arguments.methods:
        print(f"{method} ...", file=sys.stderr, flush=True)
        if arguments.accuracy:
            summary, lines = in_own_process(measure_accuracy, method, arguments)
            records += lines
        else:
            summary = in_own_process(measure_speed, method, arguments)
        print(json.dumps(summary), file=sys.stderr, flush=True)
        results.append(summary)
    if arguments.accuracy:
        arguments.accuracy.write_text("".join(
            json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    document = json.dumps({"environment": environment(arguments), "results": results}, indent=1)
    if arguments.output:
        arguments.output.write_text(document + "\n", encoding="utf-8")
    else:
        print(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
