"""Tables in Markdown."""
from __future__ import annotations

from chorus_eval.summary import difference

METHOD_NOTE = ("Intervals hold 95 %, by bootstrap over the questions; differences are paired. per_prompt: "
               "mean over the prompts.")

COST_NOTE = ("Seconds include waiting beside other requests; methods are asked one after another, and later "
             "ones find segments in the cache that earlier ones left there.")


def markdown_table(header, rows):
    """First column to the left, the others to the right."""
    def escape(cell):
        return str(cell).replace("|", "\\|")

    lines = ["| " + " | ".join(map(escape, header)) + " |", "|---|" + "--:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def share(value):
    return "-" if value is None else f"{value:.3f}"


def number(value, digits=1):
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(found, sign=""):
    return f"{found['mean']:{sign}.3f} [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]"


def method_rows(summary):
    """(header, rows) of the main table."""
    metric, baseline = summary["metric"], summary["baseline"]
    metrics = [metric] + [m for m in next(iter(summary["methods"].values()))["accuracy"] if m != metric]
    header = ["method", f"{metrics[0]} (95 %)", *metrics[1:], f"minus {baseline} (95 %, paired)",
              "consistency", "failed"]
    rows = []
    for method, entry in summary["methods"].items():
        accuracy = entry["accuracy"]
        against = "-" if method == baseline else with_interval(difference(summary, method, baseline), "+")
        rows.append([method, with_interval(accuracy[metrics[0]]),
                     *(share(accuracy[m]["mean"]) for m in metrics[1:]), against,
                     share(entry["consistency"]), entry["failed"]])
    return header, rows


def cost_rows(summary):
    """(header, rows) of what the answers cost, means over questions; None without timings."""
    if not any("seconds" in entry for entry in summary["methods"].values()):
        return None
    header = ["method", "seconds", "median", "95th percentile", "first token", "in queue", "prompt tokens",
              "from segment cache", "new tokens", "forward passes"]
    rows = []
    for method, entry in summary["methods"].items():
        seconds = [number(entry.get(key), 3) for key in ("seconds", "seconds_median", "seconds_95",
                                                         "first_token_seconds", "queue_seconds")]
        cached = entry.get("cached_share")
        rows.append([method, *seconds, number(entry["prompt_tokens"]),
                     "-" if cached is None else f"{cached:.0%}", number(entry["generated_tokens"]),
                     number(entry.get("model_steps"))])
    return header, rows


def summary_markdown(summary):
    parts = [f"{summary['questions']} questions, {model_words(summary['run'])}. Compared by "
             f"**{summary['metric']}**.", markdown_table(*method_rows(summary))]
    cost = cost_rows(summary)
    if cost is not None:
        parts += [f"Cost of an answer, mean over questions. {COST_NOTE}", markdown_table(*cost)]
    return "\n\n".join([*parts, METHOD_NOTE]) + "\n"


def model_words(run):
    model = (run or {}).get("model") or {}
    return f"{model['name']} ({model['dtype']})" if model else "model not known"


def compare_markdown(found, names):
    header = ["method", "a", "b", "b minus a (95 %, paired)"]
    rows = [[row["a"] if row["a"] == row["b"] else f"{row['a']} / {row['b']}", share(row["accuracy_a"]),
             share(row["accuracy_b"]), with_interval(row["b_minus_a"], "+")] for row in found["rows"]]
    only = "".join(f", {found[key]} only in {letter}" for key, letter in (("only_in_a", "a"), ("only_in_b", "b"))
                   if found[key])
    return (f"a: {names[0]}\nb: {names[1]}\n{found['questions']} questions in both{only}; {found['metric']}\n\n"
            f"{markdown_table(header, rows)}\n")
