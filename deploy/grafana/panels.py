"""What the Chorus dashboard shows: its rows of panels, as plain values. make_dashboard.py turns them
into Grafana's JSON; tests run their queries; draw_dashboard.py draws their results.

Queries hold Grafana's variables: $job, $instance, $__rate_interval.
"""

import dataclasses

WIDTH = 24  # of Grafana's grid
SELECTED = 'job=~"$job",instance=~"$instance"'


@dataclasses.dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """`thresholds`: values from which on the panel turns to `colours`, where the base is green."""

    title: str
    description: str
    queries: tuple
    unit: str
    kind: str = "timeseries"  # or stat, heatmap, table
    width: int = 8
    stacked: bool = False
    thresholds: tuple = ()
    colours: tuple = ("yellow", "red")
    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    title: str
    panels: tuple


def rate(metric, by="", more=""):
    """Sum of the rates of what is selected, by label."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{SELECTED}{more}}}[$__rate_interval]))"


def mean(histogram, by=""):
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"


def quantile(q, histogram, by=""):
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', labels)})"


def percentiles(title, histogram, description, unit="s", qs=(0.5, 0.9, 0.99), **options):
    queries = tuple(Query(quantile(q, histogram), f"p{q * 100:g}") for q in qs)
    return Panel(title, description, queries, unit, **options)


def heat_map(title, histogram, description, unit="s", **options):
    expr = f"sum by (le) (increase({histogram}_bucket{{{SELECTED}}}[$__rate_interval]))"
    return Panel(title, description, (Query(expr, "{{le}}"),), unit, kind="heatmap", **options)


def gauge(metric):
    return f"{metric}{{{SELECTED}}}"


OVERVIEW = Row(
    "Overview",
    (
        Panel(
            "Servers up",
            "Targets whose metrics page answers. Worry when it is lower than the number of replicas.",
            (Query(f"sum(up{{{SELECTED}}})"),),
            "none",
            kind="stat",
            width=3,
            thresholds=(1,),
            colours=("green",),
            decimals=0,
        ),
        Panel(
            "Alerts firing",
            "Of the rules in deploy/prometheus/rules.yml, over all servers. Each carries its runbook.",
            (Query('count(ALERTS{alertstate="firing",alertname=~"Chorus.*"}) or vector(0)'),),
            "none",
            kind="stat",
            width=3,
            thresholds=(1,),
            colours=("red",),
            decimals=0,
        ),
        Panel(
            "Requests",
            "Requests taken into the queue, a second. Worry about a sudden drop as much as about a rise.",
            (Query(rate("chorus_requests_accepted_total")),),
            "reqps",
            kind="stat",
            width=3,
        ),
        Panel(
            "Tokens",
            "Tokens generated a second. They count when their request ends.",
            (Query(rate("chorus_generated_tokens_total")),),
            "suffix: tok/s",
            kind="stat",
            width=3,
        ),
        Panel(
            "First token, p99",
            "99 of 100 requests had their first token sooner. Alert at 5 s.",
            (Query(quantile(0.99, "chorus_time_to_first_token_seconds")),),
            "s",
            kind="stat",
            width=3,
            thresholds=(2.5, 5),
        ),
        Panel(
            "Failed",
            "Share of ended requests that neither ended well nor were cancelled by their caller. Worry"
            " above a few per cent.",
            (
                Query(
                    rate("chorus_requests_finished_total", more=',outcome!~"ok|cancelled"')
                    + " / "
                    + rate("chorus_requests_finished_total")
                ),
            ),
            "percentunit",
            kind="stat",
            width=3,
            thresholds=(0.01, 0.05),
        ),
        Panel(
            "Waiting",
            "Requests in the queues now. Worry when it stays above 0 and grows.",
            (Query(f"sum({gauge('chorus_requests_waiting')})"),),
            "none",
            kind="stat",
            width=3,
            thresholds=(32, 128),
            decimals=0,
        ),
        Panel(
            "KV space used",
            "Of the fullest server. Above 90 % new requests wait for space. Alert at 90 % over 10 minutes.",
            (Query(f"max({gauge('chorus_kv_used_ratio')})"),),
            "percentunit",
            kind="stat",
            width=3,
            thresholds=(0.8, 0.9),
            maximum=1,
        ),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Arrivals",
            "Requests taken into the queue and requests refused, a second. Refused ones cost no compute.",
            (
                Query(rate("chorus_requests_accepted_total"), "accepted"),
                Query(rate("chorus_requests_rejected_total"), "refused"),
            ),
            "reqps",
        ),
        Panel(
            "Refusals by reason",
            "queue_full: add replicas. draining: normal in an upgrade. invalid and too_large: a caller's"
            " mistake. deadline: it had passed on arrival.",
            (Query(rate("chorus_requests_rejected_total", "reason"), "{{reason}}"),),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Outcomes",
            "How accepted requests ended, a second. Worry about internal at any rate; about"
            " deadline_exceeded, resource_exhausted and cancelled when their share grows.",
            (Query(rate("chorus_requests_finished_total", "outcome"), "{{outcome}}"),),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Methods",
            "Ended requests by fusion method. per_prompt, vote and the logit methods run a sequence a"
            " prompt, attention one.",
            (Query(rate("chorus_requests_finished_total", "method"), "{{method}}"),),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Finish reasons",
            "Why answers of well-ended requests ended. Many of length: max_new_tokens cuts answers short.",
            (Query(rate("chorus_answers_finished_total", "reason"), "{{reason}}"),),
            "suffix: /s",
            stacked=True,
        ),
        Panel(
            "Tokens",
            "Prompt tokens of started requests, those of them that the segment cache held, and generated"
            " tokens.",
            (
                Query(rate("chorus_prompt_tokens_total"), "prompt"),
                Query(rate("chorus_cached_prompt_tokens_total"), "of these cached"),
                Query(rate("chorus_generated_tokens_total"), "generated"),
            ),
            "suffix: tok/s",
        ),
    ),
)

LATENCY = Row(
    "Latency",
    (
        percentiles(
            "Time to first token",
            "chorus_time_to_first_token_seconds",
            "From submission, queue included. The dashed line is the alert's, 5 s.",
            thresholds=(5,),
            colours=("red",),
        ),
        heat_map(
            "Time to first token, all requests",
            "chorus_time_to_first_token_seconds",
            "Requests by their time to first token. Two bands are two kinds of requests, or cached and new"
            " prompts.",
        ),
        Panel(
            "Where the time goes",
            "Mean time a request spends in the queue, in reading its prompt and in generating. Queue grows"
            " first under too much traffic.",
            (
                Query(mean("chorus_request_queue_seconds"), "queue"),
                Query(mean("chorus_prefill_seconds"), "prefill"),
                Query(mean("chorus_decode_seconds"), "decode"),
            ),
            "s",
            stacked=True,
        ),
        percentiles(
            "Inter-token time",
            "chorus_inter_token_seconds",
            "Between two tokens of one answer: how smooth streams are. Worry when p99 leaves p50 far"
            " behind: prompts being read hold up answers (--prompt_share_rows).",
        ),
        heat_map(
            "Inter-token time, all tokens",
            "chorus_inter_token_seconds",
            "Tokens by the time since the token before. A band far above the others: streams that stall.",
        ),
        Panel(
            "Request time by method",
            "Submission to end, p90. Set --drain_timeout above it, or upgrades cut streams off.",
            (Query(quantile(0.9, "chorus_request_seconds", "method"), "{{method}}"),),
            "s",
        ),
        percentiles(
            "Queue time",
            "chorus_request_queue_seconds",
            "Submission to first step. Worry when p50 leaves 0: the server is full.",
        ),
        heat_map(
            "Queue time, all requests",
            "chorus_request_queue_seconds",
            "Requests by their time in the queue. A band that climbs is a queue that grows.",
        ),
        Panel(
            "Prefill and decode, p99",
            "The slowest one of a hundred requests: reading the prompt, and generating the answer. Prefill"
            " above a few seconds: long prompts, cold cache, or a small --prompt_share_rows.",
            (
                Query(quantile(0.99, "chorus_prefill_seconds"), "prefill"),
                Query(quantile(0.99, "chorus_decode_seconds"), "decode"),
            ),
            "s",
        ),
    ),
)

CAPACITY = Row(
    "Queue and KV space",
    (
        Panel(
            "Running and waiting",
            "Requests in a batch and in the queue, by server. Waiting on one server only: callers do not"
            " balance.",
            (
                Query(gauge("chorus_requests_running"), "running {{instance}}"),
                Query(gauge("chorus_requests_waiting"), "waiting {{instance}}"),
            ),
            "none",
        ),
        Panel(
            "Queue filled",
            "Waiting requests of --max_queued_requests. At 1 requests are refused.",
            (
                Query(
                    f"{gauge('chorus_requests_waiting')} / {gauge('chorus_max_queued_requests')}",
                    "{{instance}}",
                ),
            ),
            "percentunit",
            thresholds=(0.8,),
            colours=("red",),
            maximum=1,
        ),
        Panel(
            "KV space used",
            "Part of the key and value space that requests hold; idle cached segments do not count. The"
            " dashed line is the alert's.",
            (Query(gauge("chorus_kv_used_ratio"), "{{instance}}"),),
            "percentunit",
            thresholds=(0.9,),
            colours=("red",),
            maximum=1,
        ),
        Panel(
            "Preemptions",
            "Requests that lost their KV space to a more urgent one and read their prompt again. Now and"
            " then is fine; steadily, KV space is too small: --kv_cache_bytes.",
            (Query(rate("chorus_preemptions_total", "instance"), "{{instance}}"),),
            "suffix: /s",
        ),
        Panel(
            "Segment cache",
            "Segments a second that starting requests found or not, and idle ones that had to make room. "
            "Evictions close to misses: the cache is smaller than what is in use"
            " (--max_idle_cache_tokens).",
            (
                Query(rate("chorus_segment_cache_hits_total"), "hits"),
                Query(rate("chorus_segment_cache_misses_total"), "misses"),
                Query(rate("chorus_segment_cache_evictions_total"), "evictions"),
            ),
            "suffix: /s",
        ),
        Panel(
            "Segment cache hit ratio",
            "Of segments, and of prompt tokens. Worry when it falls to less than half of what it was: the"
            " alert does too.",
            (
                Query(
                    rate("chorus_segment_cache_hits_total")
                    + " / ("
                    + rate("chorus_segment_cache_hits_total")
                    + " + "
                    + rate("chorus_segment_cache_misses_total")
                    + ")",
                    "segments",
                ),
                Query(
                    rate("chorus_cached_prompt_tokens_total") + " / " + rate("chorus_prompt_tokens_total"),
                    "prompt tokens",
                ),
            ),
            "percentunit",
            maximum=1,
        ),
    ),
)

FUSION = Row(
    "Fusion",
    (
        heat_map(
            "Prompts a request",
            "chorus_segments_per_request",
            "Accepted requests by their number of prompts. More prompts, more KV space and rows.",
            unit="none",
        ),
        percentiles(
            "Disagreement",
            "chorus_prompt_disagreement",
            "Jensen-Shannon divergence of the prompts' next-token distributions, of tokens of requests that"
            " asked for it. Near 0 the prompts agree; a rise says that paraphrases mean different things.",
            unit="suffix: bit",
        ),
        Panel(
            "Attribution entropy",
            "Of a token's attention among the segments, of requests that asked for attribution. "
            "log2(prompts): all alike; near 0: one prompt decides.",
            (
                Query(mean("chorus_attribution_entropy"), "mean"),
                Query(quantile(0.1, "chorus_attribution_entropy"), "p10"),
            ),
            "suffix: bit",
        ),
    ),
)

WORKERS = Row(
    "Workers",
    (
        Panel(
            "Heartbeat age",
            "Since a worker's loop last came round: at most a second without work, at most a step with."
            " Worry above --stuck_after.",
            (
                Query(
                    f"time() - {gauge('chorus_worker_heartbeat_timestamp_seconds')}",
                    "{{instance}} worker {{worker}}",
                ),
            ),
            "s",
            thresholds=(60,),
            colours=("red",),
        ),
        Panel(
            "Step time by phase",
            "One model step, mean. prefill: prompt rows only; decode: answers only; mixed: both.",
            (Query(mean("chorus_step_seconds", "phase"), "{{phase}}"),),
            "s",
        ),
        Panel(
            "Time in steps by phase",
            "Seconds a second that workers compute, of all servers: the number of workers is the most. At"
            " that, the server is full.",
            (Query(rate("chorus_step_seconds_sum", "phase"), "{{phase}}"),),
            "suffix: s/s",
            stacked=True,
        ),
        Panel(
            "Step time by phase, p99",
            "The slowest one of a hundred steps: what a stream may stall for.",
            (Query(quantile(0.99, "chorus_step_seconds", "phase"), "{{phase}}"),),
            "s",
        ),
        heat_map(
            "Rows a step",
            "chorus_step_rows",
            "Steps by their rows, all requests' together. Few rows: little to batch; at --max_step_rows:"
            " prompts come in chunks.",
            unit="none",
        ),
        Panel(
            "Requests unaccounted for",
            "Accepted less finished, running and waiting. A moment's 1 is a page read while a request"
            " moved; a value that stays is a defect.",
            (
                Query(
                    f"{gauge('chorus_requests_accepted_total')} - sum without (method, outcome)"
                    f" ({gauge('chorus_requests_finished_total')}) - {gauge('chorus_requests_running')} -"
                    f" {gauge('chorus_requests_waiting')}",
                    "{{instance}}",
                ),
            ),
            "none",
            minimum=None,
        ),
    ),
)

BUILD = Row(
    "Build and model",
    (
        Panel(
            "Builds",
            "What runs where. More than one version: an upgrade is under way, or stuck.",
            (Query(gauge("chorus_build_info")),),
            "none",
            kind="table",
        ),
        Panel(
            "Models",
            "What is served where, and in which type of numbers. Replicas that differ give different"
            " answers.",
            (Query(gauge("chorus_model_info")),),
            "none",
            kind="table",
        ),
        Panel(
            "Draining",
            "Time since a server's drain began, and its --drain_timeout; 0 while it takes requests. Near"
            " the timeout, streams are about to be cut.",
            (
                Query(
                    f"{gauge('chorus_draining')} * (time() -"
                    f" {gauge('chorus_drain_started_timestamp_seconds')})",
                    "draining {{instance}}",
                ),
                Query(f"max({gauge('chorus_drain_timeout_seconds')})", "timeout"),
            ),
            "s",
        ),
    ),
)

ROWS = (OVERVIEW, TRAFFIC, LATENCY, CAPACITY, FUSION, WORKERS, BUILD)
