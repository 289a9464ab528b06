"""The command `chorus-plot`."""
import argparse
import json
import pathlib
import sys

from chorus_plot import drawing, live
from chorus_plot.attention_statistics import attention_statistics
from chorus_plot.attribution_data import load_attribution
from chorus_plot.errors import InputError
from chorus_plot.explain_data import QUANTITIES, load_explain_data
from chorus_plot.layout import SCENARIOS, Pieces
from chorus_plot.mask_data import load_mask
from chorus_plot.sampling import FULL_LENGTH
from chorus_plot.statistics_table import statistics_report

EPILOGUE = """\
Examples:
  chorus-plot masks --out=figures                     the four named layouts
  chorus-plot masks --prompts=6 --tokens=40 --generated=12 --out=figures
  chorus mask --segments=0:48,48:95,95:143 --length=150 --json > mask.json
  chorus-plot masks mask.json --out=figures
  chorus-plot explain "What is the capital of France?" \\
      --paraphrase="Name the capital city of France." --steps=0,1,2 --save=paris.npz --out=figures
  chorus explain "Who wrote Faust?" --paraphrase="Name the author of Faust." --output=faust.json
  chorus-plot draw faust.json --main_heads=0:0,14:3 --out=figures
  chorus-plot statistics faust.json --each_head --markdown
  chorus ask "Who wrote Faust?" --method=attention --attribution --json > answer.json
  chorus-plot attribution answer.json --out=figures

Every figure is an SVG, whose text is text, and a PNG at 300 dpi. Flags and data count layers and
heads from 0; pictures and the names of their files count from 1, and titles say both.
`chorus-plot COMMAND --help` lists a command's flags and files. Exit code: 0 done, 1 failure, 2 wrong
usage."""


def main(arguments=None):
    """Returns the exit code; argparse itself exits with 2 on wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if hasattr(options, "out"):
            pathlib.Path(options.out).mkdir(parents=True, exist_ok=True)
        for path in options.run(options) or []:
            print(path)
        return 0
    except BrokenPipeError:
        return 1
    except (InputError, OSError) as error:
        print(f"chorus-plot: {error}", file=sys.stderr)
        return 1


# ---- Commands ----

def _run_masks(options):
    if options.file is not None:
        _layout_flags(options, forbidden_by="FILE")
        mask = load_mask(options.file)
        max_positions = _max_positions(options, mask.layout)
        if mask.positions and options.max_positions is None and not options.full:
            positions = mask.positions
        else:
            positions = drawing.shown_positions(mask.layout, max_positions)
        return drawing.draw_mask(mask.layout, mask.mask_runs, positions, options.out, "custom",
                                 title=mask.title)
    flags = _layout_flags(options, forbidden_by="")
    if not flags and options.max_positions is None and not options.full:
        names = SCENARIOS if options.scenario == "all" else [options.scenario]
        return [path for name in names for path in drawing.draw_scenario(name, options.out)]
    name = "custom" if options.scenario == "all" else options.scenario
    pieces, max_positions = SCENARIOS[name]
    try:
        layout = Pieces(**{**vars(pieces), **flags}).layout()
    except InputError as error:
        options.parser.error(str(error))
    if options.max_positions is not None or options.full:
        max_positions = _max_positions(options, layout)
    return drawing.draw_mask(layout, layout.runs(), drawing.shown_positions(layout, max_positions),
                             options.out, name)


def _layout_flags(options, forbidden_by):
    """The layout's flags that were given."""
    flags = {name: getattr(options, name) for name in vars(SCENARIOS["custom"].pieces)}
    given = {name: value for name, value in flags.items()
             if value is not None and value is not False}  # 0 is a value
    if forbidden_by and given:
        options.parser.error(f"--{next(iter(given))} does not go with {forbidden_by}, which has a "
                             "layout of its own")
    return given


def _max_positions(options, layout):
    """None: every position."""
    if options.full:
        return None
    if options.max_positions is not None:
        return options.max_positions
    return None if layout.length <= FULL_LENGTH else SCENARIOS["custom"].max_positions


def _run_flowchart(options):
    return drawing.draw_flowchart(options.out)


def _run_explain(options):
    data = live.explain(options.server, options.question, options.paraphrase, **_limits(options),
                        layers=options.layers or (), heads=options.heads or (),
                        steps=options.steps or ())
    print(data.answer)
    saved = []
    if options.save:
        data.save(options.save)
        saved = [pathlib.Path(options.save)]
    return saved + drawing.draw_attention(data, options.out, options.quantities, options.main_heads)


def _run_ask(options):
    data, answer = live.attribution(options.server, options.question, options.paraphrase,
                                    **_limits(options))
    print(data.answer)
    saved = []
    if options.save:
        saved = [pathlib.Path(options.save)]
        saved[0].write_text(json.dumps(answer), encoding="utf-8")
    return saved + drawing.draw_attribution(data, options.out)


def _limits(options):
    given = {} if options.max_new_tokens is None else {"max_new_tokens": options.max_new_tokens}
    return {"deadline": options.timeout, **given}


def _run_save(options):
    load_explain_data(options.file).save(options.output)
    return [options.output]


def _run_draw(options):
    data = load_explain_data(options.file)
    return drawing.draw_attention(data, options.out, options.quantities, options.main_heads,
                                  data.layers if options.layers == "all" else options.layers)


def _run_statistics(options):
    data = load_explain_data(options.file)
    print(statistics_report([attention_statistics(data, name) for name in options.quantities],
                            markdown=options.markdown, heads=options.each_head), end="")


def _run_attribution(options):
    return drawing.draw_attribution(load_attribution(options.file), options.out)


# ---- Flags ----

def _parser():
    parser = argparse.ArgumentParser(
        prog="chorus-plot", epilog=EPILOGUE, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        description="Draws what a fused request may attend to, and what it did attend to.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_masks(commands)
    _add_command(commands, "flowchart", _run_flowchart, "one request's way through Chorus",
                 "Writes flowchart.")
    _add_explain(commands)
    _add_ask(commands)
    _add_saved(commands)
    return parser


def _add_command(commands, name, run, summary, details, out=True):
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {details}",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.set_defaults(run=run, parser=parser)
    if out:
        parser.add_argument("--out", default=".", metavar="FOLDER",
                            help="where the files go; default: here")
    return parser


def _add_masks(commands):
    parser = _add_command(
        commands, "masks", _run_masks, "pictures of the mask",
        "Without flags the four named layouts:\nmask_small, mask_medium with attention_patterns, "
        "mask_large, and mask_custom with\nmask_matrix_custom.npy. With any other flag, or for FILE, "
        "one layout: mask_NAME,\nattention_patterns and mask_matrix_NAME.npy, a boolean matrix of "
        "what the picture shows\n(`chorus mask --npy` writes the whole one).")
    parser.add_argument("file", nargs="?", metavar="FILE",
                        help="written by `chorus mask --json`, `chorus explain --json` or "
                             "`chorus-plot save`: draw that mask instead")
    parser.add_argument("--scenario", choices=["all", *SCENARIOS], default="all")
    parser.add_argument("--prompts", type=int, metavar="N", help="segments")
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens of each segment")
    parser.add_argument("--separator_tokens", type=int, metavar="N", help="tokens between two segments")
    parser.add_argument("--attached", action="store_true",
                        help="separators belong to the segment before them")
    parser.add_argument("--prefix_length", type=int, metavar="N",
                        help="tokens that every segment sees")
    parser.add_argument("--generated", type=int, metavar="N", help="rows that see everything")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--max_positions", type=int, metavar="N", help="show at most so many; from 5")
    shown.add_argument("--full", action="store_true",
                       help=f"show every position, at most {drawing.MAX_FULL_POSITIONS}")


def _add_explain(commands):
    parser = _add_command(
        commands, "explain", _run_explain, "asks a server to explain a request, and draws",
        "Files: as `chorus-plot draw`.")
    _add_question(parser)
    parser.add_argument("--layers", type=_indexes, metavar="L,L", help="from 0; default: all")
    parser.add_argument("--heads", type=_indexes, metavar="H,H", help="from 0; default: all")
    parser.add_argument("--steps", type=_indexes, metavar="S,S",
                        help="generated tokens whose rows are looked at, from 0; default: 0")
    parser.add_argument("--save", metavar="FILE.npz", help="keep the data, to draw it later")
    _add_choice(parser)


def _add_ask(commands):
    parser = _add_command(
        commands, "ask", _run_ask, "asks a server, and draws attribution over time",
        "Writes attribution.")
    _add_question(parser)
    parser.add_argument("--save", metavar="FILE.json", help="keep the answer, to draw it later")


def _add_saved(commands):
    parser = _add_command(
        commands, "draw", _run_draw, "figures of saved attention",
        "Writes attention_main, layerN_per_head_grid,\nlayerN_all_heads (N from 1) and "
        "layer_comparison, of the logits before softmax; of the\nsoftmax mass the same with _mass.")
    _add_explain_file(parser)
    parser.add_argument("--layers", type=_layers, metavar="L,L|all",
                        help=f"from 0; default: all up to {drawing.MAX_LAYERS_UNASKED}, else those "
                             "of --main_heads in detail and a few compared")
    _add_choice(parser)

    parser = _add_command(commands, "statistics", _run_statistics, "tables of sink scores",
                          "First, middle and last unit, their ratio\nand difference, spread, sink "
                          "heads.", out=False)
    _add_explain_file(parser)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--each_head", action="store_true", help="a row for each head too")
    _add_quantities(parser)

    parser = _add_command(commands, "save", _run_save, "keeps explained attention as npz",
                          "Much smaller than JSON;\nevery command reads both.", out=False)
    _add_explain_file(parser)
    parser.add_argument("output", metavar="OUTPUT.npz")

    parser = _add_command(commands, "attribution", _run_attribution,
                          "attribution over time, of a saved answer", "Writes attribution.")
    parser.add_argument("file", metavar="FILE", help="written by `chorus ask --attribution --json`")


def _add_question(parser):
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--paraphrase", action="append", default=[], metavar="TEXT",
                        help="another wording of the question; repeat it for more")
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT",
                        help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS",
                        help="longest time of the call; default: %(default)s")
    parser.add_argument("--max_new_tokens", type=int, metavar="N", help="default: the server's")


def _add_explain_file(parser):
    parser.add_argument("file", metavar="FILE",
                        help="written by `chorus explain --json` or `chorus-plot save`")


def _add_choice(parser):
    parser.add_argument("--main_heads", type=_layer_heads, metavar="L:H,L:H",
                        help="of attention_main, from 0; default: the first, and the one with the "
                             "largest sink score")
    _add_quantities(parser)


def _add_quantities(parser):
    parser.add_argument("--quantities", type=_quantities, default=list(QUANTITIES),
                        metavar="logits,mass", help="default: both")


def _indexes(text):
    values = [int(part) for part in text.split(",")]
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"'{text}': indexes count from 0")
    return values


def _layers(text):
    return text if text == "all" else _indexes(text)


def _layer_heads(text):
    pairs = [_indexes(part.replace(":", ",")) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"'{text}': layer:head, as in 0:0,14:3")
    return [tuple(pair) for pair in pairs]


def _quantities(text):
    values = text.split(",")
    for value in values:
        if value not in QUANTITIES:
            raise argparse.ArgumentTypeError(f"'{value}' is none of {', '.join(QUANTITIES)}")
    return values


if __name__ == "__main__":
    sys.exit(main())
