"""An experiment's numbers as Markdown."""
from __future__ import annotations

from chorus_eval.tables import markdown_table, model_words, number, share, with_interval

COST_NOTE = (
    "Forward passes: of an implementation that runs one prompt at a time and keeps keys and values, where a token of an "
    "answer is a pass, and a token that is fused from logits is a pass of every prompt. Rows: tokens that the model "
    "reads, prompt and answer; once with the shared prefix read for every prompt anew, and as Chorus reads them with an "
    "empty segment cache.")


def markdown(found):
    parts = [f"# {found['title']}", introduction(found), "## Baselines",
             _table(found, ["baseline"], [{"labels": {"baseline": name}, **row}
                                          for name, row in found["baselines"].items()])]
    for group in found["groups"]:
        parts += [f"## {group['title']}", _table(found, group["axes"], group["rows"], group["against"])]
        if group["cost"]:
            parts += [COST_NOTE, _cost_table(group)]
        if group.get("agreement"):
            parts += [_agreement_note(group), _agreement_table(group)]
    return "\n\n".join(parts) + "\n"


def introduction(found):
    held_out = (f" The first {found['tuned_on']} questions are those that the defaults were chosen by; \"held out\" are the "
                f"{found['questions'] - found['tuned_on']} others." if _has_held_out(found) else "")
    return (f"{found['questions']} questions, {model_words(found)}; {found['settings']} different settings. Accuracy: "
            f"{found['metric']}. Intervals hold 95 %, by bootstrap over the questions; differences are paired.{held_out}\n\n"
            f"{found['comparisons']} pairs of settings are compared on all questions: of so many intervals, about "
            f"{found['comparisons'] / 20:.0f} would leave out 0 if nothing made any difference. * marks differences that "
            "stand after correction for all of them (sign-flip test, Holm: p below 0.05).")


def _has_held_out(found):
    return any("held_out" in row for row in found["baselines"].values())


def difference(entry):
    """A difference from a baseline; * where it stands after correction."""
    star = " *" if entry.get("holm") is not None and entry["holm"] < 0.05 else ""
    return with_interval(entry, "+") + star


def _other_axes(axes, axis):
    return " and ".join(name for name in axes if name != axis)


def _table(found, axes, rows, group_against=None):
    baselines, held_out = list(found["baselines"]), _has_held_out(found)
    others = [m for m in rows[0]["other_metrics"] if m in ("contains", "lemma") and m != found["metric"]]
    consistency = any(row["consistency"] is not None for row in rows)
    against = " ".join(f"{label}, same {_other_axes(axes, axis)}" for axis, label in (group_against or {}).items())
    header = [*axes, f"{found['metric']} (95 %)", *others, *(f"minus {name}" for name in baselines),
              *([f"minus {against}"] if against else []),
              *(["held out", f"held out, minus {baselines[-1]}"] if held_out else []),
              *(["consistency"] if consistency else [])]
    lines = []
    for row in rows:
        line = [*row["labels"].values(), with_interval(row["accuracy"]),
                *(share(row["other_metrics"][m]) for m in others),
                *(difference(row["minus"][name]) for name in baselines)]
        if against:
            line.append(difference(row["minus"]["against"]) if "against" in row["minus"] else "-")
        if held_out:
            line += [share(row["held_out"]["mean"]), with_interval(row["held_out_minus"][baselines[-1]], "+")]
        if consistency:
            line.append(share(row["consistency"]))
        lines.append(line)
    return markdown_table(header, lines)


def _cost_table(group):
    timed = any("seconds" in row for row in group["rows"])
    header = [*group["axes"], "forward passes, one prompt at a time", "rows, prefix for every prompt",
              "rows, prefix once", *(["seconds"] if timed else [])]
    lines = [[*row["labels"].values(), number(row.get("passes")), number(row.get("rows_unshared")),
              number(row.get("rows")), *([number(row.get("seconds"), 3)] if timed else [])] for row in group["rows"]]
    return markdown_table(header, lines)


def add_seconds(found, seconds):
    """Puts seconds a question, {label: number}, into the rows of cost tables."""
    for group in found["groups"]:
        for row in group["rows"] if group["cost"] else ():
            label = ", ".join(row["labels"].values())
            if isinstance(seconds.get(label), (int, float)):
                row["seconds"] = seconds[label]


def _agreement_note(group):
    return f"How often answers agree between the values of \"{group['agreement']['over']}\", after lemmatising:"


def _agreement_table(group):
    rows = group["agreement"]["rows"]
    return markdown_table([*rows[0]["labels"], "agreement (95 %)"],
                          [[*row["labels"].values(), with_interval(row)] for row in rows])
