"""Where each generated token's attention went, token by token, as stacked areas."""
import matplotlib
import numpy as np

from chorus_plot import style

MAX_TOKEN_LABELS = 80
MAX_LABEL_CHARACTERS = 14


def attribution_figure(data):
    """Above: everything, which adds up to 1. Below, with several prompts: shares among prompts."""
    prompts = [index for index, label in enumerate(data.labels) if label.startswith("prompt ")]
    compare = len(prompts) > 1
    tokens = len(data.tokens)
    figure = style.new_figure(min(max(8.0, tokens * 0.3 + 2.5), 20), 7.4 if compare else 4.4)
    all_axes = figure.subplots(2 if compare else 1, 1, sharex=True, squeeze=False)[:, 0]
    colors = _colors(data.labels)
    _stack(all_axes[0], data.shares, colors)
    all_axes[0].set_ylabel("share of attention")
    if compare:
        shares = data.shares[:, prompts]
        sums = shares.sum(1, keepdims=True)
        shares = np.divide(shares, sums, out=np.zeros_like(shares), where=sums > 0)
        _stack(all_axes[1], shares, [colors[index] for index in prompts])
        all_axes[1].set_ylabel("share among the prompts")
    _token_ticks(all_axes[-1], data.tokens)
    handles, labels = [matplotlib.patches.Patch(facecolor=color) for color in colors], data.labels
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
    style.axes_title(all_axes[0], "Attribution over time",
                     "softmax mass of each token's row, mean over layers and heads")
    return figure


def _stack(axes, shares, colors):
    """[tokens, parts]. Each token is one step wide, so that one token alone has an area too."""
    edges = np.arange(len(shares) + 1) - 0.5
    columns = np.concatenate([shares, shares[-1:]]).T
    axes.stackplot(edges, columns, colors=colors, step="post", edgecolor="white", linewidth=0.4)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1))


def _token_ticks(axes, tokens):
    if len(tokens) > MAX_TOKEN_LABELS:
        axes.set_xlabel("generated token")
        return
    names = [style.visible(token)[:MAX_LABEL_CHARACTERS] for token in tokens]
    axes.set_xticks(range(len(tokens)), names, rotation=90, fontsize=9)
    axes.set_xlabel("generated token")


def _colors(labels):
    """Prompts in colours, the rest in greys."""
    prompts = [label for label in labels if label.startswith("prompt ")]
    if len(prompts) <= len(style.PALETTE):
        hues = dict(zip(prompts, style.PALETTE))
    else:
        values = np.linspace(0, 1, len(prompts))
        hues = dict(zip(prompts, matplotlib.colormaps[style.SEQUENTIAL](values)))
    return [hues.get(label) if label in hues else style.GREYS[label] for label in labels]
