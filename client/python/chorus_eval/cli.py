"""The command chorus-eval."""
from __future__ import annotations

import json
import pathlib
import sys

from chorus_client import ChorusError
from chorus_eval import (data, experiment, experiment_plan, journal, options, results, run_command, runner, scoring,
                         summary, tables)
from chorus_eval.output import write_outputs


def rescore(arguments):
    scorer = run_command.make_scorer(arguments)
    metric = run_command.chosen_metric(arguments, scorer)
    records = [results.score_record(record, scorer) for record in results.read_results(arguments.run)]
    timings = results.read_timings(arguments.run)
    folder = results.results_path(arguments.run).parent
    document = results.read_json(folder / results.RUN)
    found = summary.summarize(records, timings, metric, document)
    output = pathlib.Path(arguments.output or folder)
    write_outputs(output, records, timings, found, figures=not arguments.no_figures, note=run_command.say)
    if document is not None:
        results.write_json(output / results.RUN, document)
    print(tables.summary_markdown(found), end="")
    return 0


def compare(arguments):
    runs = [results.read_results(arguments.a), results.read_results(arguments.b)]
    shared = [metric for metric in scoring.METRICS
              if all(metric in record["scores"] for records in runs for record in records)]
    metric = arguments.metric or ("lemma" if "lemma" in shared else "contains")
    if metric not in shared:
        raise run_command.BadInput(f"--metric: {metric!r} is not in both runs: chorus-eval rescore --lemmatize adds it")
    found = summary.compare(*runs, metric)
    if not found["questions"]:
        raise run_command.BadInput(f"{arguments.a} and {arguments.b} have no question in common")
    print(json.dumps(found, indent=1) if arguments.json else
          tables.compare_markdown(found, (arguments.a, arguments.b)), end="\n" if arguments.json else "")
    return 0


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help"):
        argv.insert(0, "run")
    arguments = options.make_parser().parse_args(argv)
    command = {"run": run_command.run, "rescore": rescore, "compare": compare,
               "experiment": experiment.experiment}[arguments.command]
    try:
        return command(arguments)
    except (run_command.BadInput, data.DataError, experiment_plan.PlanError, results.ResultsError,
            scoring.LemmatizerMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (runner.RunError, journal.JournalError, ChorusError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what is answered is kept: run the same command again", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
