"""What the GPU benchmark runs: requests, the cases with their targets, and the mask once more, in numpy, as an oracle
that shares nothing with the kernels."""

import dataclasses
import math

import numpy

# Query heads, key heads, head size: Llama-3.2-3B and Llama-3.2-1B.
HEADS = {"head_dim_128": (24, 8, 128), "head_dim_64": (32, 8, 64)}


def _triangle(n):
    return n * (n + 1) // 2


@dataclasses.dataclass(frozen=True)
class Request:
    segments: tuple
    prefix: int = 0
    suffix: int = 0
    generated: int = 0
    is_decode: bool = False  # the step has its last row only

    @property
    def length(self):
        return self.prefix + sum(self.segments) + self.suffix + self.generated

    @property
    def first_row(self):
        return self.length - 1 if self.is_decode else 0

    def owners(self):
        """[length] the segment that owns a token; -1: prefix; len(segments): suffix or generated."""
        pieces = [-1] * self.prefix
        for index, size in enumerate(self.segments):
            pieces += [index] * size
        return numpy.array(pieces + [len(self.segments)] * (self.suffix + self.generated))

    def allowed(self, rows):
        """[rows, length] whether token q may see key k: causal; within a segment only the prefix and itself."""
        owner = self.owners()
        q, k = numpy.asarray(rows)[:, None], numpy.arange(self.length)[None, :]
        same = (owner[q] == owner[k]) | (owner[k] == -1) | (owner[q] == len(self.segments))
        return (k <= q) & same

    def num_pairs(self):
        """Pairs (row of the step, key) that are allowed."""
        fused = range(max(self.first_row, self.prefix + sum(self.segments)), self.length)
        pairs = sum(row + 1 for row in fused)
        if not self.is_decode:
            pairs += _triangle(self.prefix) + sum(_triangle(n) + n * self.prefix for n in self.segments)
        return pairs


@dataclasses.dataclass(frozen=True)
class Target:
    """Of one head shape. `unit`: TFLOP/s, us (at most that much), or share (of the measured copy rate)."""
    unit: str
    first: float
    must: float
    stretch: float
    against_dense: tuple | None = None  # first, must: times the best dense SDPA back end

    def is_met(self, value, limit):
        return value <= limit if self.unit == "us" else value >= limit


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    request: Request
    num_requests: int = 1
    targets: dict = dataclasses.field(default_factory=dict)  # name of HEADS -> Target
    layers_in_graph: int = 0  # replayed as one CUDA graph of so many layers; 0: launched one by one

    @property
    def requests(self):
        return [self.request] * self.num_requests

    def useful_flops(self, heads):
        num_heads, _, head_dim = heads
        return 4.0 * head_dim * num_heads * self.num_requests * self.request.num_pairs()


def _both(unit, wide, narrow, against_dense=None):
    return {"head_dim_128": Target(unit, *wide, against_dense), "head_dim_64": Target(unit, *narrow, against_dense)}


def _decode(keys, prefix=0):
    """A request about to read its last generated row, with `keys` keys in all."""
    segment = (keys - prefix - 8) // 6
    suffix = keys - prefix - 6 * segment - 4
    return Request((segment,) * 6, prefix=prefix, suffix=suffix, generated=4, is_decode=True)


GPU_CASES = (
    Case("16 segments x 4000", Request((4000,) * 16), 1,
         _both("TFLOP/s", (300, 450, 560), (260, 350, 420), (8, 13))),
    Case("8 segments x 2000", Request((2000,) * 8), 1,
         _both("TFLOP/s", (280, 415, 500), (230, 300, 370), (4, 6))),
    Case("32 requests of 6 x 500", Request((500,) * 6), 32,
         _both("TFLOP/s", (180, 230, 280), (130, 160, 200), (2, 2.5))),
    Case("64 requests of 6 x 50", Request((50,) * 6), 64, _both("us", (140, 110, 95), (90, 70, 60))),
    Case("1 request of 6 x 50, CUDA graph", Request((50,) * 6), 1, _both("us", (10, 8, 6), (8, 6, 5)),
         layers_in_graph=28),
    Case("decode, 64 requests of 1024 keys", _decode(1024), 64, {"head_dim_128": Target("share", 0.85, 0.85, 0.92)}),
    Case("decode, 128 requests of 1024 keys", _decode(1024), 128, {"head_dim_64": Target("share", 0.85, 0.85, 0.92)}),
    Case("decode, 32 requests of 320 keys", _decode(320), 32, {"head_dim_128": Target("us", 18, 18, 18)},
         layers_in_graph=28),
    Case("decode, 1 request of 1000 keys", _decode(1000), 1, {"head_dim_128": Target("us", 9, 9, 7)},
         layers_in_graph=28),
)

# The same kinds of steps, small enough for simulated thread blocks. No targets: their times mean nothing.
HOST_CASES = (
    Case("3 segments x 90", Request((90,) * 3)),
    Case("2 requests of 6 x 12", Request((12,) * 6), 2),
    Case("1 request of 6 x 12, CUDA graph", Request((12,) * 6), layers_in_graph=2),
    Case("decode, 2 requests of 90 keys", _decode(90, prefix=20), 2),
)

# For correctness only: everything that a request can have, more than one span of keys in a fused row, and lengths that
# are no multiple of anything.
MIXED = (Request((50, 1, 77, 203), prefix=37, suffix=9, generated=3), Request((5,), suffix=1),
         Request((130, 401), prefix=0, suffix=20, generated=1), Request((64,) * 9, prefix=64, suffix=5, is_decode=True))
HOST_MIXED = (Request((10, 1, 37), prefix=17, suffix=9, generated=3), Request((40,) * 3, suffix=2, is_decode=True))


def expected_row(request, token, q, keys_of):
    """Attention in float64 of one row: (output [heads, d], log-sum-exp [heads]). q [heads, d]; keys_of(tokens) gives
    k and v, both [tokens, kv heads, d]."""
    k, v = (part.astype(numpy.float64) for part in keys_of(numpy.flatnonzero(request.allowed([token])[0])))
    q = q.astype(numpy.float64).reshape(k.shape[1], -1, q.shape[1])
    logits = numpy.einsum("hgd,nhd->hgn", q, k) / math.sqrt(q.shape[2])
    maximum = logits.max(axis=2, keepdims=True)
    weights = numpy.exp(logits - maximum)
    total = weights.sum(axis=2, keepdims=True)
    out = numpy.einsum("hgn,nhd->hgd", weights / total, v)
    return out.reshape(-1, q.shape[2]), (maximum + numpy.log(total)).reshape(-1)


def sampled_tokens(request, count, seed):
    """At most `count` tokens of the step: the last, and a sample of pieces' first and last ones and of any."""
    random = numpy.random.default_rng(seed)
    edges = numpy.flatnonzero(numpy.diff(request.owners()))
    chosen = {request.first_row, *edges.tolist(), *(edges + 1).tolist()}
    chosen |= set(random.integers(request.first_row, request.length, count).tolist())
    chosen = sorted(token for token in chosen if request.first_row <= token < request.length - 1)
    return numpy.sort(numpy.append(random.permutation(chosen)[:count - 1], request.length - 1)).astype(int)
