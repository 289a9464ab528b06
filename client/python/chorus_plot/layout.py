"""Where everything stands in one fused sequence: SegmentLayout of core/segment, in Python."""
import dataclasses
import typing

from chorus_plot.errors import check
from chorus_plot.mask_runs import MaskRun, MaskRuns, TokenRange

MAX_TOKENS = 1 << 30


@dataclasses.dataclass(frozen=True)
class SegmentLayout:
    """[prefix] segment [separator] segment ... | suffix, generated: `length` tokens in all.

    Segments are half-open, in order and disjoint. Tokens before `original_length` that are in
    neither prefix nor segment are isolated separators; from `original_length` on every row sees
    everything before it.
    """
    segments: tuple
    original_length: int
    length: int
    prefix_length: int = 0
    suffix_length: int = 0  # of the tokens from original_length on, those that the prompt ends with

    def __post_init__(self):
        check(0 <= self.prefix_length <= self.original_length,
              f"prefix_length is {self.prefix_length}; it must be 0..{self.original_length}, "
              "the original_length")
        check(self.original_length <= self.length <= MAX_TOKENS,
              f"length is {self.length}; it must be {self.original_length}..{MAX_TOKENS}")
        check(self.segments, "segments is empty; one is needed")
        check(0 <= self.suffix_length <= self.length - self.original_length,
              f"suffix_length is {self.suffix_length}; it must be "
              f"0..{self.length - self.original_length}, the tokens from original_length on")
        before = self.prefix_length
        for index, (begin, end) in enumerate(self.segments):
            check(begin >= before,
                  f"segments[{index}] begins at {begin}; the prefix or segment before it ends at "
                  f"{before}")
            check(end > begin, f"segments[{index}] is [{begin}, {end}): it has no token")
            check(end <= self.original_length,
                  f"segments[{index}] ends at {end}; the original_length is {self.original_length}")
            before = end

    @property
    def has_fused_rows(self):
        """Suffix or generated tokens, which see everything before them."""
        return self.original_length < self.length

    def runs(self):
        """The segment mask as MaskRuns, row by row."""
        prefix = TokenRange(0, self.prefix_length)
        runs = [MaskRun(prefix, (prefix,))] if self.prefix_length else []
        at = self.prefix_length
        for segment in self.segments:
            if at < segment.begin:
                runs.append(MaskRun(TokenRange(at, segment.begin), ()))
            runs.append(MaskRun(segment, (prefix, segment) if self.prefix_length else (segment,)))
            at = segment.end
        if at < self.original_length:
            runs.append(MaskRun(TokenRange(at, self.original_length), ()))
        if self.has_fused_rows:
            rows = TokenRange(self.original_length, self.length)
            runs.append(MaskRun(rows, (TokenRange(0, self.length),)))
        return MaskRuns(tuple(runs), self.length)

    def representative_queries(self):
        """Four (label, row): a token of the first and of the last segment, original_length, if it
        is in the sequence, and the last token."""
        first, last = self.segments[0], self.segments[-1]
        queries = [("first segment", min(first.begin + 5, first.end - 1)),
                   ("last segment", min(last.begin + 5, last.end - 1))]
        if self.has_fused_rows:
            name = "start of the suffix" if self.suffix_length else "first generated"
            queries.append((name, self.original_length))
        return [*queries, ("last", self.length - 1)]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A layout by counts: `prompts` segments of `tokens` each, separators between them."""
    prompts: int
    tokens: int
    separator_tokens: int
    generated: int
    prefix_length: int = 0
    attached: bool = False  # a separator then belongs to the segment before it

    def __post_init__(self):
        for name, least in [("prompts", 1), ("tokens", 1), ("separator_tokens", 0),
                            ("generated", 0), ("prefix_length", 0)]:
            value = getattr(self, name)
            check(least <= value <= MAX_TOKENS,
                  f"{name} is {value}; it must be {least}..{MAX_TOKENS}")
        total = (self.prefix_length + self.prompts * (self.tokens + self.separator_tokens)
                 + self.generated)
        check(total <= MAX_TOKENS, f"the layout has {total} tokens; at most {MAX_TOKENS}")

    def layout(self):
        stride = self.tokens + self.separator_tokens
        begins = [self.prefix_length + index * stride for index in range(self.prompts)]
        original_length = begins[-1] + self.tokens
        own = stride if self.attached else self.tokens
        return SegmentLayout(
            tuple(TokenRange(begin, min(begin + own, original_length)) for begin in begins),
            original_length, original_length + self.generated, self.prefix_length)


class Scenario(typing.NamedTuple):
    """A named layout, and how much of it is shown: every position, or at most max_positions."""
    pieces: Pieces
    max_positions: typing.Optional[int]


SCENARIOS = {
    "small": Scenario(Pieces(prompts=3, tokens=15, separator_tokens=2, generated=5), None),
    "medium": Scenario(Pieces(prompts=5, tokens=25, separator_tokens=3, generated=8), 30),
    "large": Scenario(Pieces(prompts=5, tokens=50, separator_tokens=4, generated=15), 35),
    "custom": Scenario(Pieces(prompts=4, tokens=30, separator_tokens=3, generated=10), 30),
}
