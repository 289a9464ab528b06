"""What all figures share: fonts, colours that colour-blind readers tell apart, files."""
import pathlib
import warnings

import matplotlib
from matplotlib.figure import Figure

DPI = 300
FORMATS = ("svg", "png")

# The palette of Okabe and Ito (2008), without its yellow, which is too pale for lines.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GREYS = {"prefix": "#4D4D4D", "separators": "#7F7F7F", "suffix": "#A6A6A6", "generated": "#D0D0D0"}
SINK = "#D55E00"
ALLOWED = "#9FB4C7"
SEGMENT_BOUNDARY = "#D00000"   # red and blue by the founding document, told apart by their dashes too
GENERATION_START = "#0033CC"
INK = "#222222"
SEQUENTIAL = "viridis"

SETTINGS = {
    "svg.fonttype": "none",       # text stays text
    "svg.hashsalt": "chorus",     # the same figure is the same file
    "text.parse_math": False,     # a token may be a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.12,
}


def settings():
    """A block in which figures are made and saved: `with settings(): ...`"""
    return matplotlib.rc_context(SETTINGS)


def new_figure(width, height):
    """An empty figure of so many inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def title(figure, *lines):
    """Above the middle of the whole figure."""
    figure.suptitle("\n".join(lines), fontsize=11.5)


def axes_title(axes, *lines):
    """Above the axes alone: a legend beside them stays clear of it."""
    axes.set_title("\n".join(lines), fontsize=11)


def save(figure, folder, name):
    """Writes folder/name.svg and .png, and returns their paths."""
    paths = [pathlib.Path(folder) / f"{name}.{kind}" for kind in FORMATS]
    with warnings.catch_warnings():
        # A token in a script that DejaVu Sans lacks is a box in the PNG and itself in the SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=DPI, metadata=metadata)
    return paths


def visible(token):
    """A token's text on one line."""
    return token.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r").strip(" ") or "␣"
