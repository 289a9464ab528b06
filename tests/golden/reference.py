"""Every fusion method, written plainly with Transformers: the truth the engine is tested against.

Nothing here is shared with Chorus, nothing is fast. float32 weights and activations, eager
attention with an explicit additive mask [1, 1, queries, keys] and explicit position ids; logit
rows are combined in float64. Greedy choice; ties go to the lowest id.

Layers with a sliding window or chunks get masks of their own: the fused mask AND the window, which
is measured in position ids. A single prompt of a model whose class makes such masks itself
(Mistral, Qwen2) is left to that class, mask and cache.
"""

import dataclasses
import math
import unicodedata

import numpy as np
import torch
import transformers

ATTENTION_NAME = "fusion_reference"


# --- What is asked -------------------------------------------------------------------------------


@dataclasses.dataclass
class Prompt:
    """Token ids of the pieces, each tokenised on its own. Empty list: the piece is absent."""

    segments: list
    prefix: list = dataclasses.field(default_factory=list)
    separator: list = dataclasses.field(default_factory=list)
    suffix: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Fusion:
    """Settings of one request, with the names of the service's enums without their prefixes."""

    method: str = "ATTENTION"
    positions: str = "OVERLAPPING"
    separators: str = "ISOLATED"
    first_token: str = "FUSE_FIRST"
    weights: list | None = None
    attention_temperature: float | None = None
    attention_scale: float | None = None
    segment_log_bias: float | None = None


# --- Layout and mask of the fused sequence -------------------------------------------------------

PREFIX, SEGMENT, SEPARATOR = "prefix", "segment", "separator"
SUFFIX, GENERATED = "suffix", "generated"


@dataclasses.dataclass
class Entry:
    """One token of the fused sequence. `owner`: index of the owning segment, or None."""

    token: int
    position: int
    kind: str
    owner: int | None = None


class Layout:
    """The fused sequence: prefix, segments with separators between them, suffix, generated."""

    def __init__(self, prompt, fusion):
        self.entries = []
        self.prefix_length = len(prompt.prefix)
        self.segment_ranges = []  # [begin, end) of each segment's own tokens
        self._sequential = fusion.positions == "SEQUENTIAL"
        for token in prompt.prefix:
            self._append(token, len(self.entries), PREFIX)
        for index, segment in enumerate(prompt.segments):
            start = len(self.entries) if self._sequential else self.prefix_length
            begin = len(self.entries)
            for offset, token in enumerate(segment):
                self._append(token, start + offset, SEGMENT, index)
            self.segment_ranges.append((begin, len(self.entries)))
            if index + 1 < len(prompt.segments):
                owner = index if fusion.separators == "ATTACHED" else None
                for offset, token in enumerate(prompt.separator):
                    self._append(token, start + len(segment) + offset, SEPARATOR, owner)
        self.original_length = len(self.entries)
        for token in prompt.suffix:
            self._append(token, self.next_position(), SUFFIX)

    def _append(self, token, position, kind, owner=None):
        self.entries.append(Entry(int(token), position, kind, owner))

    def next_position(self):
        """Suffix and generated tokens go on from one more than the largest position so far."""
        return max((entry.position for entry in self.entries), default=-1) + 1

    def append_generated(self, token):
        self._append(token, self.next_position(), GENERATED)

    def may_attend(self, q, k):
        if k > q:
            return False
        if q >= self.original_length:
            return True
        query, key = self.entries[q], self.entries[k]
        if query.owner is not None and query.owner == key.owner:
            return True
        return k < self.prefix_length and (q < self.prefix_length or query.owner is not None)

    def mask(self, first_row=0):
        """Boolean [rows from first_row on, all keys]."""
        length = len(self.entries)
        return torch.tensor([[self.may_attend(q, k) for k in range(length)]
                             for q in range(first_row, length)])

    def positions(self):
        return [entry.position for entry in self.entries]

    def segment_columns(self):
        """Keys owned by a segment: those that temperature, scale and bias touch."""
        return torch.tensor([entry.owner is not None for entry in self.entries])

    def attribution(self, mass):
        """Sums a row's attention mass [keys] into [prefix, segment 0 .. N - 1, separators, suffix,
        generated]. An attached separator counts with its segment, "separators" are the unowned."""
        num_segments = len(self.segment_ranges)
        group_of = {PREFIX: 0, SEPARATOR: num_segments + 1, SUFFIX: num_segments + 2,
                    GENERATED: num_segments + 3}
        sums = [0.0] * (num_segments + 4)
        for entry, value in zip(self.entries, mass.tolist()):
            group = group_of[entry.kind] if entry.owner is None else 1 + entry.owner
            sums[group] += value
        return sums

    def fused_rows(self, first_row=0):
        return torch.arange(first_row, len(self.entries)) >= self.original_length


# --- Attention -----------------------------------------------------------------------------------


@dataclasses.dataclass
class SegmentScaling:
    """Temperature T, scale S and bias over the segment columns of the fused rows."""

    temperature: float
    scale: float
    bias: float
    segment_columns: torch.Tensor  # bool [keys]
    fused_rows: torch.Tensor  # bool [queries]


def _softmax_and_lse(scores):
    """Softmax over keys and its log-sum-exp. A row of nothing but -inf gives zeros and -inf."""
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    empty = torch.isneginf(lse)
    probabilities = torch.exp(scores - torch.where(empty, torch.zeros_like(lse), lse))
    return torch.where(empty, torch.zeros_like(probabilities), probabilities), lse


def _scaled_probabilities(scores, scaling):
    """Softmax of the fused rows: the segment columns at temperature T form one part, all other
    columns the other; the parts are weighed by exp(S * lse_segments + bias) and exp(lse_others)."""
    minus_inf = torch.full_like(scores, -math.inf)
    columns = scaling.segment_columns
    others, lse_others = _softmax_and_lse(torch.where(columns, minus_inf, scores))
    segments, lse_segments = _softmax_and_lse(
        torch.where(columns, scores / scaling.temperature, minus_inf))
    lse_segments = scaling.scale * lse_segments + scaling.bias
    total = torch.logaddexp(lse_others, lse_segments)
    return others * torch.exp(lse_others - total) + segments * torch.exp(lse_segments - total)


def reference_attention(module, query, key, value, attention_mask, scaling, dropout=0.0,
                        segment_scaling=None, last_row_masses=None, layer_masks=None, **_):
    """query [1, heads, queries, head_dim], key and value [1, kv_heads, keys, head_dim]. The last
    row's probabilities, mean over heads, are appended to the list `last_row_masses`.
    `layer_masks`: one mask a layer, instead of `attention_mask`."""
    if layer_masks is not None:
        attention_mask = layer_masks[module.layer_idx]
    groups = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(groups, dim=1)
    value = value.repeat_interleave(groups, dim=1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling + attention_mask
    probabilities, _ = _softmax_and_lse(scores)
    if segment_scaling is not None and bool(segment_scaling.fused_rows.any()):
        scaled = _scaled_probabilities(scores, segment_scaling)
        rows = segment_scaling.fused_rows[:, None]
        probabilities = torch.where(rows, scaled, probabilities)
    if last_row_masses is not None:
        last_row_masses.append(probabilities[0, :, -1].double().mean(dim=0))
    output = torch.matmul(probabilities, value)
    return output.transpose(1, 2).contiguous(), probabilities


transformers.AttentionInterface.register(ATTENTION_NAME, reference_attention)
# For prompts whose masks the model's class makes: additive ones, as for eager attention.
transformers.AttentionMaskInterface.register(ATTENTION_NAME,
                                             transformers.masking_utils.eager_mask)


# --- Layers with windows -------------------------------------------------------------------------


def layer_types(config):
    """The kind of every layer; Mistral's class has one for all and does not name it."""
    types = getattr(config, "layer_types", None)
    if types is None:
        slides = config.model_type == "mistral" and config.sliding_window is not None
        types = ["sliding_attention" if slides else "full_attention"] * config.num_hidden_layers
    return types


def makes_window_masks(config):
    """Whether the model's class makes the masks of its windows itself."""
    return (config.model_type in ("mistral", "qwen2")
            and any(kind != "full_attention" for kind in layer_types(config)))


def window(config, kind, query_positions, key_positions):
    """Boolean [queries, keys]: what a layer of this kind may see, as far as the window goes."""
    queries = torch.tensor(query_positions)[:, None]
    keys = torch.tensor(key_positions)[None, :]
    if kind == "sliding_attention":
        return queries - keys < config.sliding_window
    if kind == "chunked_attention":
        return queries // config.attention_chunk_size == keys // config.attention_chunk_size
    return torch.ones(len(query_positions), len(key_positions), dtype=torch.bool)


def additive(allowed):
    return torch.where(allowed, 0.0, -math.inf)[None, None]


def load_model(directory):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=ATTENTION_NAME)
    return model.eval()


@torch.no_grad()
def forward(model, tokens, positions, allowed, cache=None, segment_scaling=None, masses=None):
    """Logits [rows, vocabulary] in float64. `positions`: of all keys, the rows' own last.
    `allowed`: bool [rows, cached keys + rows]. `masses`: a list that gets the last row's attention
    per layer, [keys], mean over heads."""
    row_positions = positions[-len(tokens):]
    types = layer_types(model.config)
    layer_masks = None
    if any(kind != "full_attention" for kind in types):
        layer_masks = [additive(allowed & window(model.config, kind, row_positions, positions))
                       for kind in types]
    output = model(input_ids=torch.tensor([tokens]), position_ids=torch.tensor([row_positions]),
                   attention_mask=additive(allowed), past_key_values=cache,
                   use_cache=cache is not None, segment_scaling=segment_scaling,
                   last_row_masses=masses, layer_masks=layer_masks)
    return output.logits[0].double()


@torch.no_grad()
def own_forward(model, tokens, cache):
    """Logits [rows, vocabulary] of the next tokens of a plain prompt: masks, positions and cache
    are the model class's own."""
    return model(input_ids=torch.tensor([tokens]), past_key_values=cache,
                 use_cache=True).logits[0].double()


# --- Sequences: one per fused request, or one per prompt ------------------------------------------


class FusedSequence:
    """An ATTENTION request in progress."""

    def __init__(self, model, prompt, fusion, recompute=False):
        self._model, self._prompt, self._fusion = model, prompt, fusion
        self.layout = Layout(prompt, fusion)
        self._cache = None if recompute else transformers.DynamicCache()
        self._rows_done = 0
        # Per choice made: where the row that was chosen from looked (Layout.attribution), mean
        # over layers. None where several rows were averaged.
        self.attributions = []

    def _scaling(self, first_row):
        fusion = self._fusion
        temperature, scale, bias = (fusion.attention_temperature, fusion.attention_scale,
                                    fusion.segment_log_bias)
        if temperature is None and scale is None and bias is None:
            return None
        return SegmentScaling(1.0 if temperature is None else temperature,
                              1.0 if scale is None else scale, 0.0 if bias is None else bias,
                              self.layout.segment_columns(), self.layout.fused_rows(first_row))

    def _run_new_rows(self):
        first = 0 if self._cache is None else self._rows_done
        rows = self.layout.entries[first:]
        masses = []
        logits = forward(self._model, [row.token for row in rows], self.layout.positions(),
                         self.layout.mask(first), self._cache, self._scaling(first), masses)
        self._rows_done = len(self.layout.entries)
        self.attributions.append(self.layout.attribution(torch.stack(masses).mean(dim=0)))
        return logits

    def first_row(self):
        logits = self._run_new_rows()
        if self._prompt.suffix or self._fusion.first_token == "LAST_SEGMENT":
            return logits[-1]
        # The last own token of each segment; an attached separator is not an own token.
        self.attributions[0] = None
        last_rows = torch.stack([logits[end - 1] for _, end in self.layout.segment_ranges])
        return weighted_mean(last_rows, self._fusion.weights)

    def next_row(self, token):
        self.layout.append_generated(token)
        return self._run_new_rows()[-1]


class PlainSequence:
    """prefix + one segment + suffix under the ordinary causal mask, and the layers' windows."""

    def __init__(self, model, prompt, index):
        self._model = model
        self._prompt_tokens = prompt.prefix + prompt.segments[index] + prompt.suffix
        self._is_own = makes_window_masks(model.config)
        self._cache = (transformers.DynamicCache(config=model.config) if self._is_own
                       else transformers.DynamicCache())
        self._length = 0

    def _run(self, tokens):
        if self._is_own:
            return own_forward(self._model, tokens, self._cache)[-1]
        begin, end = self._length, self._length + len(tokens)
        allowed = torch.arange(end)[None, :] <= torch.arange(begin, end)[:, None]
        self._length = end
        return forward(self._model, tokens, list(range(end)), allowed, self._cache)[-1]

    def first_row(self):
        return self._run(self._prompt_tokens)

    def next_row(self, token):
        return self._run([token])


class LockstepSequences:
    """A logit-level request: the rows of all prompts combined, one token appended to all."""

    def __init__(self, model, prompt, fusion):
        self._sequences = [PlainSequence(model, prompt, i) for i in range(len(prompt.segments))]
        self._fusion = fusion

    def first_row(self):
        return combine([sequence.first_row() for sequence in self._sequences], self._fusion)

    def next_row(self, token):
        return combine([sequence.next_row(token) for sequence in self._sequences], self._fusion)


# --- Combining rows ------------------------------------------------------------------------------


def weighted_mean(rows, weights):
    """rows [prompts, vocabulary]."""
    if weights is None:
        return rows.mean(dim=0)
    share = torch.tensor(weights, dtype=rows.dtype)
    return (rows * (share / share.sum())[:, None]).sum(dim=0)


def combine(rows, fusion):
    """One row from the prompts' logit rows: logits for LOGIT_*, log-probabilities for PROB_*."""
    rows = torch.stack(rows)
    if fusion.method == "LOGIT_MEAN":
        return weighted_mean(rows, fusion.weights)
    if fusion.method == "LOGIT_MAX":
        return rows.max(dim=0).values
    probabilities = torch.softmax(rows, dim=-1)
    if fusion.method == "PROB_MEAN":
        combined = weighted_mean(probabilities, fusion.weights)
    elif fusion.method == "PROB_MAX":
        combined = probabilities.max(dim=0).values
    else:
        raise ValueError(f"{fusion.method} combines nothing")
    return torch.log(combined / combined.sum())


# --- Greedy generation ---------------------------------------------------------------------------


@dataclasses.dataclass
class Answer:
    token_ids: list
    # One per choice made, the end-of-sequence choice included: top-1 minus top-2 of the row.
    margins: list
    # Log-softmax of the row at each token of token_ids.
    logprobs: list
    finish_reason: str
    first_row: np.ndarray


def generate(sequence, max_new_tokens, eos_ids):
    """Greedy. `eos_ids`: tokens that end the answer and are not part of it; empty: none does."""
    row = sequence.first_row().numpy()
    answer = Answer([], [], [], "LENGTH", row)
    while True:
        token = int(np.argmax(row))  # numpy returns the first of equal values: the lowest id
        second, first = np.partition(row, -2)[-2:]
        answer.margins.append(float(first - second))
        if token in eos_ids:
            answer.finish_reason = "EOS"
            return answer
        answer.token_ids.append(token)
        answer.logprobs.append(float(row[token] - np.logaddexp.reduce(row)))
        if len(answer.token_ids) == max_new_tokens:
            return answer
        row = sequence.next_row(token).numpy()


def score(sequence, continuation):
    """Log-probability of each continuation token under the fused model, and whether greedy choice
    would have said all of it."""
    logprobs, greedy = [], True
    for index, token in enumerate(continuation):
        row = (sequence.first_row() if index == 0
               else sequence.next_row(continuation[index - 1])).numpy()
        logprobs.append(float(row[token] - np.logaddexp.reduce(row)))
        greedy = greedy and int(np.argmax(row)) == token
    return logprobs, greedy


def sequence_for(model, prompt, fusion, recompute=False):
    if fusion.method == "ATTENTION":
        return FusedSequence(model, prompt, fusion, recompute)
    return LockstepSequences(model, prompt, fusion)


def per_prompt_answers(model, prompt, max_new_tokens, eos_ids):
    return [generate(PlainSequence(model, prompt, index), max_new_tokens, eos_ids)
            for index in range(len(prompt.segments))]


# --- Vote ----------------------------------------------------------------------------------------


def normalised_answer(text):
    """First line, NFKC, lower case, outer space and final punctuation off."""
    line = unicodedata.normalize("NFKC", text.split("\n")[0]).lower().strip()
    while line and (line[-1].isspace() or unicodedata.category(line[-1]).startswith("P")):
        line = line[:-1]
    return line


def mean_logprob(answer):
    return sum(answer.logprobs) / len(answer.logprobs) if answer.logprobs else -math.inf


def vote(answers, texts):
    """Majority over the normalised answers. A tie goes to the answer that holds the best mean
    log-probability, and so does the choice of the member whose text is streamed."""
    groups = {}
    for index, text in enumerate(texts):
        groups.setdefault(normalised_answer(text), []).append(index)
    means = [mean_logprob(answer) for answer in answers]

    def rank(item):
        return len(item[1]), max(means[i] for i in item[1])

    text, members = max(groups.items(), key=rank)
    tied = sum(len(other) == len(members) for other in groups.values()) > 1
    return {
        "winner": max(members, key=lambda i: means[i]),
        "answer": text,
        "decided_by_mean_logprob": tied,
        "tally": [{"answer": other, "count": len(prompts), "prompts": prompts}
                  for other, prompts in sorted(groups.items(), key=lambda g: (-len(g[1]), g[1]))],
    }
