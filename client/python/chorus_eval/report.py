"""A run as one HTML file that needs nothing else: no network, no script."""
from __future__ import annotations

import html

from chorus_eval import tables
from chorus_eval.results import scored_texts

_MAX_QUESTIONS = 2000  # a browser bears that many open rows
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px; }
th, td { padding: .3em .7em; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
table.answers td, table.answers th { text-align: left; }
svg { max-width: 100%; height: auto; }
.right { background: #e3f2e3; } .partly { background: #f7f3d7; } .wrong { background: #fae5e3; }
small, .note { color: #666; }
"""


def _cell(tag, value, css=""):
    attribute = f' class="{css}"' if css else ""
    return f"<{tag}{attribute}>{html.escape(str(value))}</{tag}>"


def html_table(header, rows):
    head = "".join(_cell("th", name) for name in header)
    body = "".join("<tr>" + "".join(_cell("td", cell) for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n"


def _settings(run):
    rows = [(name, value) for name, value in (run.get("settings") or {}).items()
            if value not in (None, False, "", [], ())]
    body = "".join(f"<tr>{_cell('td', name)}{_cell('td', value)}</tr>\n" for name, value in rows)
    return f'<details><summary>Settings</summary><table class="answers">{body}</table></details>\n'


def _answer_cell(record, metric):
    if record is None:
        return _cell("td", "")
    if "error" in record:
        return _cell("td", f"failed: {record['error']['message']}", "wrong")
    score = record["scores"][metric]
    css = "right" if score == 1 else "wrong" if score == 0 else "partly"
    return _cell("td", " / ".join(text.strip().split("\n")[0] for text in scored_texts(record)), css)


def _answers(records, methods, metric):
    by_question = {}
    for record in records:
        by_question.setdefault(record["id"], {})[record["method"]] = record
    head = "".join(_cell("th", name) for name in ("question", "gold", *methods))
    rows = []
    for row in list(by_question.values())[:_MAX_QUESTIONS]:
        first = next(iter(row.values()))
        cells = "".join(_answer_cell(row.get(method), metric) for method in methods)
        rows.append(f"<tr>{_cell('td', first.get('question', first['id']))}"
                    f"{_cell('td', ' / '.join(first['gold']))}{cells}</tr>\n")
    left = len(by_question) - len(rows)
    note = f'<p class="note">{left} more questions are in results.jsonl.</p>\n' if left else ""
    return (f"<details><summary>Every answer</summary>\n<table class=\"answers\"><thead><tr>{head}</tr>"
            f"</thead><tbody>\n{''.join(rows)}</tbody></table>{note}</details>\n")


def _inline_svg(svg):
    """Without its XML declaration and document type, which have no place inside HTML."""
    return svg[svg.index("<svg"):]


def make_report(summary, records, figures):
    """The page's text. `figures`: of figures.make_figures, or empty."""
    run, metric = summary["run"] or {}, summary["metric"]
    title = f"Chorus evaluation: {tables.model_words(run)}"
    parts = [f"<h1>{html.escape(title)}</h1>\n<p>{summary['questions']} questions"
             f"{', ' + html.escape(run['data']) if run.get('data') else ''}. Compared by "
             f"<b>{html.escape(metric)}</b>.</p>\n", html_table(*tables.method_rows(summary))]
    parts += [f"<figure>{_inline_svg(figure['svg'])}</figure>\n" for figure in figures.values()]
    cost = tables.cost_rows(summary)
    if cost is not None:
        parts += [f"<h2>Cost of an answer</h2>\n<p>{html.escape(tables.COST_NOTE)}</p>\n", html_table(*cost)]
    parts += [f'<p class="note">{html.escape(tables.METHOD_NOTE)}</p>\n',
              _answers(records, list(summary["methods"]), metric), _settings(run)]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
            '\'unsafe-inline\'; img-src data:">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{_STYLE}</style></head>\n<body>\n{''.join(parts)}</body></html>\n")
