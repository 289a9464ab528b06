"""Requests and answers as frozen dataclasses: the messages of proto/chorus/v1/inference.proto, field
by field under the same names. `None` and empty mean "not set": the contract's default holds. The
contract's comments say what every field means and what is allowed; a test keeps both in step.
"""
from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence


class _Name(str, enum.Enum):
    """An enum value as the contract names it, without the enum's prefix and in lower case."""

    def __str__(self):
        return self.value

    @classmethod
    def _missing_(cls, value):
        if isinstance(value, str) and value != value.lower():
            return cls(value.lower())
        return None


class Method(_Name):
    ATTENTION = "attention"
    LOGIT_MEAN = "logit_mean"
    PROB_MEAN = "prob_mean"
    PROB_MAX = "prob_max"
    LOGIT_MAX = "logit_max"
    PER_PROMPT = "per_prompt"
    VOTE = "vote"


class Positions(_Name):
    SEQUENTIAL = "sequential"
    OVERLAPPING = "overlapping"


class Separators(_Name):
    ISOLATED = "isolated"
    ATTACHED = "attached"


class FirstToken(_Name):
    FUSE_FIRST = "fuse_first"
    LAST_SEGMENT = "last_segment"


class Template(_Name):
    AUTO = "auto"
    NONE = "none"
    CHATML = "chatml"
    LLAMA3 = "llama3"


class FinishReason(_Name):
    EOS = "eos"
    LENGTH = "length"
    STOP_STRING = "stop_string"
    STOP_TOKEN = "stop_token"


class UnitKind(_Name):
    PREFIX = "prefix"
    SEGMENT = "segment"
    SEPARATORS = "separators"
    SUFFIX = "suffix"
    GENERATED = "generated"


# Python's enums -> (the contract's enum, the prefix of its values).
ENUMS = {
    Method: ("FusionMethod", "FUSION_METHOD_"),
    Positions: ("PositionMode", "POSITION_MODE_"),
    Separators: ("SeparatorPolicy", "SEPARATOR_POLICY_"),
    FirstToken: ("FirstToken", "FIRST_TOKEN_"),
    Template: ("Template", "TEMPLATE_"),
    FinishReason: ("FinishReason", "FINISH_REASON_"),
    UnitKind: ("UnitKind", "UNIT_KIND_"),
}

message = dataclasses.dataclass(frozen=True, kw_only=True)


# ---- Request ----

@message
class TextPrompt:
    question: str = ""
    paraphrases: Sequence[str] = ()
    prompts: Sequence[str] = ()
    prefix: str | None = None
    suffix: str | None = None
    separator: str | None = None
    template: Template | None = None
    system: str | None = None


@message
class TokenSegment:
    token_ids: Sequence[int] = ()


@message
class TokenPrompt:
    segments: Sequence[TokenSegment] = ()
    prefix: TokenSegment | None = None
    suffix: TokenSegment | None = None
    separator: TokenSegment | None = None


@message
class Fusion:
    method: Method | None = None
    positions: Positions | None = None
    separators: Separators | None = None
    first_token: FirstToken | None = None
    weights: Sequence[float] = ()
    attention_temperature: float | None = None
    attention_scale: float | None = None
    segment_log_bias: float | None = None


@message
class Sampling:
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    allowed_token_ids: Sequence[int] = ()


@message
class Stopping:
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    include_stop: bool = False


@message
class ResponseOptions:
    top_logprobs: int = 0
    attribution: bool = False
    prompt_disagreement: bool = False


@message
class GenerateRequest:
    prompt: TextPrompt | TokenPrompt
    fusion: Fusion = Fusion()
    sampling: Sampling = Sampling()
    stopping: Stopping = Stopping()
    response: ResponseOptions = ResponseOptions()
    request_id: str = ""
    priority: int = 0


# ---- Response ----

@message
class PromptInfo:
    request_id: str = ""
    seed: int = 0
    segment_tokens: Sequence[int] = ()
    original_length: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    worker: int = 0


@message
class TokenLogprob:
    token_id: int = 0
    text: str = ""
    logprob: float = 0.0


@message
class TopLogprobs:
    entries: Sequence[TokenLogprob] = ()


@message
class Attribution:
    prefix: float = 0.0
    segments: Sequence[float] = ()
    separators: float = 0.0
    suffix: float = 0.0
    generated: float = 0.0


@message
class TokenChunk:
    text: str = ""
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    top_logprobs: Sequence[TopLogprobs] = ()
    prompt_index: int = 0
    attribution: Sequence[Attribution] = ()
    disagreement: Sequence[float] = ()


@message
class Usage:
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    model_steps: int = 0
    scored_tokens: int = 0


@message
class Timing:
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0


@message
class PromptAnswer:
    index: int = 0
    reason: FinishReason | None = None
    stop: str = ""
    text: str = ""
    token_ids: Sequence[int] = ()
    mean_logprob: float = 0.0


@message
class VoteCount:
    answer: str = ""
    count: int = 0
    prompt_indexes: Sequence[int] = ()


@message
class FinishInfo:
    reason: FinishReason | None = None
    stop: str = ""
    text: str = ""
    token_ids: Sequence[int] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()
    prompts: Sequence[PromptAnswer] = ()
    tally: Sequence[VoteCount] = ()


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole answer: what `Generate` streams, gathered. `text`, `usage` and so on are `finish`'s."""
    prompt_info: PromptInfo
    chunks: tuple[TokenChunk, ...]
    finish: FinishInfo

    @property
    def text(self) -> str:
        return self.finish.text

    @property
    def token_ids(self) -> Sequence[int]:
        return self.finish.token_ids

    @property
    def reason(self) -> FinishReason | None:
        return self.finish.reason

    @property
    def usage(self) -> Usage:
        return self.finish.usage

    @property
    def timing(self) -> Timing:
        return self.finish.timing

    @property
    def prompts(self) -> Sequence[PromptAnswer]:
        return self.finish.prompts

    @property
    def tally(self) -> Sequence[VoteCount]:
        return self.finish.tally


# ---- Score ----

@message
class Continuation:
    """One of the two."""
    text: str | None = None
    tokens: TokenSegment | None = None


@message
class ScoreRequest:
    """A continuation may also be given as its text alone, or as its token ids."""
    prompt: TextPrompt | TokenPrompt
    fusion: Fusion = Fusion()
    continuations: Sequence[Continuation | str | Sequence[int]] = ()
    prompt_logprobs: bool | None = None
    request_id: str = ""
    priority: int = 0


@message
class ContinuationScore:
    logprob: float = 0.0
    is_greedy: bool = False
    token_logprobs: Sequence[float] = ()
    prompt_logprobs: Sequence[float] = ()
    token_ids: Sequence[int] = ()
    greedy_token_ids: Sequence[int] = ()


@message
class ScoreResponse:
    scores: Sequence[ContinuationScore] = ()
    prompt_info: PromptInfo = PromptInfo()
    usage: Usage = Usage()
    timing: Timing = Timing()


# ---- Explain ----

@message
class ExplainRequest:
    request: GenerateRequest
    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    steps: Sequence[int] = ()


@message
class TokenRange:
    begin: int = 0
    end: int = 0


@message
class FusedLayout:
    token_ids: Sequence[int] = ()
    tokens: Sequence[str] = ()
    positions: Sequence[int] = ()
    prefix_length: int = 0
    original_length: int = 0
    prompt_length: int = 0
    length: int = 0
    segments: Sequence[TokenRange] = ()
    prompt_indexes: Sequence[int] = ()


@message
class MaskStatistics:
    allowed: int = 0
    total: int = 0
    ratio: float = 0.0
    fully_masked_rows: Sequence[TokenRange] = ()


@message
class MaskRun:
    rows: TokenRange = TokenRange()
    keys: Sequence[TokenRange] = ()


@message
class AttentionUnit:
    kind: UnitKind | None = None
    prompt_index: int = 0
    num_keys: int = 0


@message
class LayerAttention:
    """`logits` and `mass` are [steps, heads, units], row-major."""
    layer: int = 0
    logits: Sequence[float] = ()
    mass: Sequence[float] = ()


@message
class ExplainResponse:
    prompt_info: PromptInfo = PromptInfo()
    finish: FinishInfo = FinishInfo()
    layout: FusedLayout = FusedLayout()
    mask: MaskStatistics = MaskStatistics()
    mask_runs: Sequence[MaskRun] = ()
    units: Sequence[AttentionUnit] = ()
    steps: Sequence[int] = ()
    layers: Sequence[LayerAttention] = ()
    heads: Sequence[int] = ()


# ---- Tokenize, Detokenize, GetModelInfo ----

@message
class TokenizeResponse:
    token_ids: Sequence[int] = ()
    tokens: Sequence[str] = ()


@message
class ModelInfo:
    """GetModelInfoResponse."""
    name: str = ""
    dtype: str = ""
    device: str = ""
    vocab_size: int = 0
    context_length: int = 0
    num_parameters: int = 0
    weight_bytes: int = 0
    kv_bytes_per_token: int = 0
    kv_slots: int = 0
    num_layers: int = 0
    num_heads: int = 0
    num_kv_heads: int = 0
    head_dim: int = 0
    hidden_size: int = 0
    template: Template | None = None
    default_system: str = ""
    bos_token_id: int | None = None
    eos_token_ids: Sequence[int] = ()
    max_request_tokens: int = 0
    max_prompts: int = 0
    num_workers: int = 0
    server_version: str = ""
    max_continuations: int = 0
    named_bos_token_id: int | None = None
