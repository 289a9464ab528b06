#!/usr/bin/env python3
"""The comparator under load: llama.cpp answers many questions at a time, timed.

    python llama_cpp_reference.py --gguf FILE --questions FILE.json --job fused [--parallel 32]

Jobs:
  fused     what ATTENTION with overlapping positions computes. A question has a sequence id for
            each prompt and one for the answer. Each prompt is read behind a copy of the prefix
            under its own id; then the answer's id is added to all those cells, so that suffix and
            generated tokens, which have that id alone, see every prompt. One answer a question.
  parallel  every prompt is a sequence of its own behind a copy of the prefix, and is answered by
            itself: as many answers a question as it has prompts.
The prefix is read once, before the clock starts. --parallel questions are answered at a time, one
beginning as soon as another has ended; greedy, exactly --max-new-tokens each. FILE.json holds
token ids: {"prefix": [...], "questions": [[[prompt 0], [prompt 1], ...], ...], "suffix": [...]}.
Prints JSON. Needs llama-cpp-python 0.3.36 or later, and nothing else of this repository.
"""

import argparse
import collections
import ctypes
import json
import pathlib
import sys
import time

try:
    import llama_cpp
    import llama_cpp.llama_cpp as api
    import numpy
except ImportError as missing:
    sys.exit(f"{missing}. Install what this script needs:\n"
             "  python3 -m pip install llama-cpp-python==0.3.36 numpy")

PREFIX_ID = 0
GGML_LOG_LEVEL_ERROR = 4
CELLS_STEP = 256  # llama.cpp rounds the cells of a context up to this

Row = collections.namedtuple("Row", "token position sequence gives_token")


@api.llama_log_callback
def _log_errors(level, text, _):
    if level == GGML_LOG_LEVEL_ERROR:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class Context:
    """A model and its KV cells."""

    def __init__(self, arguments, num_sequences, num_cells):
        api.llama_log_set(_log_errors, ctypes.c_void_p(0))
        api.llama_backend_init()
        self._model = api.llama_model_load_from_file(str(arguments.gguf).encode(),
                                                     api.llama_model_default_params())
        if not self._model:
            sys.exit(f"llama.cpp cannot load {arguments.gguf}")
        kind = api.GGML_TYPE_F32 if arguments.kv == "float32" else api.GGML_TYPE_F16
        params = api.llama_context_default_params()
        params.n_ctx, params.n_seq_max = num_cells, num_sequences
        params.n_batch, params.n_ubatch = max(arguments.batch, arguments.ubatch), arguments.ubatch
        params.n_threads = params.n_threads_batch = arguments.threads
        params.flash_attn_type = int(arguments.flash_attention == "on")
        params.type_k = params.type_v = kind
        params.kv_unified = arguments.cells == "unified"
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            sys.exit(f"llama.cpp cannot make a context of {num_sequences} sequences and "
                     f"{num_cells} cells")
        self.max_rows = params.n_batch
        self._memory = api.llama_get_memory(self._context)
        self._batch = api.llama_batch_init(self.max_rows, 0, 1)
        self._vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))

    def copy(self, source, target):
        api.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def remove(self, sequence):
        api.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def decode(self, rows):
        """The likeliest token behind each row that gives one, in order."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, row in enumerate(rows):
            batch.token[i], batch.pos[i] = row.token, row.position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, row.sequence
            batch.logits[i] = row.gives_token
        code = api.llama_decode(self._context, batch)
        if code != 0:
            sys.exit(f"llama_decode returned {code} for {len(rows)} rows")
        return [self._likeliest(i) for i, row in enumerate(rows) if row.gives_token]

    def _likeliest(self, index):
        logits = api.llama_get_logits_ith(self._context, index)
        return int(numpy.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())


def rows_of(tokens, position, sequence, gives_token):
    """Only the last row gives a token, if any does."""
    last = len(tokens) - 1
    return [Row(token, position + i, sequence, gives_token and i == last)
            for i, token in enumerate(tokens)]


def answer_fused(context, ids, work, prompts, max_new_tokens):
    """A generator: yields the rows of a step and is sent the tokens that they gave."""
    fused, *own = ids
    start = len(work["prefix"])
    rows = []
    for sequence, prompt in zip(own, prompts):
        context.copy(PREFIX_ID, sequence)
        rows += rows_of(prompt, start, sequence, gives_token=False)
    yield rows
    for sequence, _ in zip(own, prompts):
        context.copy(sequence, fused)
        context.remove(sequence)
    position = start + max(map(len, prompts))
    tokens, answer = work["suffix"], []
    while len(answer) < max_new_tokens:
        answer += yield rows_of(tokens, position, fused, gives_token=True)
        position += len(tokens)
        tokens = answer[-1:]
    context.remove(fused)
    return [answer]


def answer_parallel(context, ids, work, prompts, max_new_tokens):
    """As answer_fused."""
    texts = [prompt + work["suffix"] for prompt in prompts]
    positions = [len(work["prefix"])] * len(texts)
    answers = [[] for _ in texts]
    for sequence, _ in zip(ids, texts):
        context.copy(PREFIX_ID, sequence)
    while len(answers[0]) < max_new_tokens:
        rows = []
        for i, text in enumerate(texts):
            rows += rows_of(text, positions[i], ids[i], gives_token=True)
            positions[i] += len(text)
        chosen = yield rows
        texts = [[token] for token in chosen]
        for answer, token in zip(answers, chosen):
            answer.append(token)
    for sequence, _ in zip(ids, texts):
        context.remove(sequence)
    return answers


JOBS = {"fused": answer_fused, "parallel": answer_parallel}


def ids_per_question(job, work):
    return max(map(len, work["questions"])) + (job == "fused")


class Running:
    """A question that is being answered: its generator and the rows that it wants next."""

    def __init__(self, index, slot, generator):
        self.index, self.slot, self.generator = index, slot, generator
        self.rows = next(generator)


def answer_all(context, arguments, work):
    """The answers, a list for each question."""
    job, width = JOBS[arguments.job], ids_per_question(arguments.job, work)
    waiting = collections.deque(enumerate(work["questions"]))
    free = list(range(arguments.parallel))
    running, answers = [], [None] * len(waiting)
    while waiting or running:
        num_rows = sum(len(question.rows) for question in running)
        while waiting and free:
            index, prompts = waiting[0]
            # Whole questions only: a step in the middle of one would gain nothing.
            num_rows += sum(len(prompt) + len(work["suffix"]) for prompt in prompts)
            if num_rows > context.max_rows and running:
                break
            waiting.popleft()
            slot = free.pop()
            ids = range(1 + slot * width, 1 + (slot + 1) * width)
            running.append(Running(index, slot, job(context, ids, work, prompts,
                                                    arguments.max_new_tokens)))
        step(context, running, answers)
        free += [question.slot for question in running if answers[question.index] is not None]
        running = [question for question in running if answers[question.index] is None]
    return answers


def step(context, running, answers):
    """One step of every running question; fills in the answers of those that end."""
    chosen = context.decode([row for question in running for row in question.rows])
    place = 0
    for question in running:
        count = sum(row.gives_token for row in question.rows)
        try:
            question.rows = question.generator.send(chosen[place:place + count])
        except StopIteration as end:
            answers[question.index] = end.value
        place += count


def measure(arguments, work):
    longest = max(sum(map(len, prompts)) + len(prompts) * (len(work["suffix"])
                                                           + arguments.max_new_tokens)
                  for prompts in work["questions"])
    num_sequences = 1 + arguments.parallel * ids_per_question(arguments.job, work)
    if arguments.cells == "unified":
        num_cells = len(work["prefix"]) + arguments.parallel * longest
    else:
        prompt = max(len(prompt) for prompts in work["questions"] for prompt in prompts)
        num_cells = len(work["prefix"]) + prompt + len(work["suffix"]) + arguments.max_new_tokens
        num_cells = num_sequences * (-(-num_cells // CELLS_STEP) * CELLS_STEP)
    context = Context(arguments, num_sequences, -(-num_cells // CELLS_STEP) * CELLS_STEP)
    context.decode(rows_of(work["prefix"], 0, PREFIX_ID, gives_token=False))
    warm_up = {**work, "questions": work["questions"][:2]}
    answer_all(context, arguments, warm_up)
    begin = time.perf_counter()
    answers = answer_all(context, arguments, work)
    seconds = time.perf_counter() - begin
    return {"version": llama_cpp.__version__, "seconds": seconds,
            "questions_per_second": len(answers) / seconds,
            "sequences": num_sequences, "cells": num_cells, "answers": answers}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True, type=pathlib.Path)
    parser.add_argument("--questions", required=True, type=pathlib.Path, metavar="FILE.json")
    parser.add_argument("--job", choices=JOBS, default="fused")
    parser.add_argument("--parallel", type=int, default=32, help="questions at a time")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8192, help="rows of one llama_decode at most")
    parser.add_argument("--ubatch", type=int, default=512, help="rows computed together")
    parser.add_argument("--flash-attention", choices=("on", "off"), default="on")
    parser.add_argument("--kv", choices=("float32", "float16"), default="float16")
    parser.add_argument("--cells", choices=("unified", "own"), default="unified",
                        help="one pool of KV cells, or each sequence its own; fused: unified")
    parser.add_argument("--count", type=int, help="answer the first so many questions alone")
    arguments = parser.parse_args()
    if min(arguments.parallel, arguments.max_new_tokens, arguments.threads, arguments.ubatch) < 1:
        parser.error("counts must be at least 1")
    if arguments.job == "fused" and arguments.cells == "own":
        parser.error("--job fused needs --cells unified: its tokens see several sequences' cells")
    return arguments


def main():
    arguments = parse_arguments()
    work = json.loads(arguments.questions.read_text())
    work["questions"] = work["questions"][:arguments.count]
    most = api.llama_max_parallel_sequences()
    if 1 + arguments.parallel * ids_per_question(arguments.job, work) > most:
        # A question's own ids and the prefix's must fit; fewer questions at a time do.
        arguments.parallel = (most - 1) // ids_per_question(arguments.job, work)
    result = measure(arguments, work)
    print(json.dumps({"job": arguments.job, "parallel": arguments.parallel,
                      "ubatch": arguments.ubatch, "flash_attention": arguments.flash_attention,
                      "kv": arguments.kv, "cells_of": arguments.cells, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
