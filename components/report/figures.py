"""The figures of a report: curves, calibration, scores, learning, trend. Each gives an inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from components.core.text import spaced
from components.metrics.calibration import ReliabilityBins
from components.metrics.point import average_precision, precision_recall_curve, roc_auc, roc_curve
from components.report.svg import BLUE, COLOURS, GREY, INK, MUTED, ORANGE, PAPER, RED, drawing, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Curve = tuple[str, Array, Array]
"""Model, probability [N], patches it may be judged on, bool [N]."""

POINTS = 400
"""Points of a curve; more can't be seen."""


def _thin(*columns: Array) -> list[Array]:
    """The same points of several columns, few enough, first and last kept."""
    n = len(columns[0])
    if n <= POINTS:
        return list(columns)
    keep = np.unique(np.linspace(0, n - 1, POINTS).round().astype(int))
    return [column[keep] for column in columns]


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    axes.set_aspect("equal")


def _legend_below(figure: Figure, axes: Axes, columns: int = 1) -> None:
    """A legend under the axes, where it hides no curve."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=columns)


def roc(name: str, labels: Array, curves: Sequence[Curve], cut: float | None) -> Markup:
    """ROC curves of several models on the same patches.

    Args:
        name: Unique on the page.
        labels: 0 or 1, [N].
        curves: The candidate first.
        cut: Stored threshold of the first, marked on its curve.
    """
    with drawing(4.3, 4.5) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        _plot_curves(axes, labels, curves, roc_curve, "AUC", roc_auc)
        if cut is not None and curves:
            called, y = curves[0][1] >= np.float32(cut), labels.astype(bool)
            if y.any() and not y.all():
                _mark_threshold(axes, called[~y].mean(), called[y].mean(), cut)
        _unit_square(axes, "1 - specificity", "sensitivity")
        _legend_below(figure, axes)
        return inline(figure, name, "ROC curves: sensitivity against 1 - specificity on the test split")


def precision_recall(name: str, labels: Array, curves: Sequence[Curve], cut: float | None) -> Markup:
    """Precision-recall curves; arguments as `roc`."""
    with drawing(4.3, 4.5) as (figure, axes):
        share = float(np.mean(labels)) if len(labels) else 0.0
        axes.axhline(share, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        _plot_curves(axes, labels, curves, precision_recall_curve, "PR-AUC", average_precision)
        if cut is not None and curves:
            called, y = curves[0][1] >= np.float32(cut), labels.astype(bool)
            if y.any() and called.any():
                _mark_threshold(axes, called[y].mean(), y[called].mean(), cut)
        _unit_square(axes, "recall (sensitivity)", "precision (PPV)")
        _legend_below(figure, axes)
        return inline(figure, name, "Precision against recall on the test split; dotted: prevalence")


def _plot_curves(
    axes: Axes,
    labels: Array,
    curves: Sequence[Curve],
    points: Callable[[Array, Array], tuple[Array, Array, Array]],
    area_name: str,
    area: Callable[[Array, Array], float],
) -> None:
    styles = ((BLUE, "-"), (ORANGE, "--"), (GREY, "-."))
    for (model, probability, rows), (colour, line) in zip(curves, styles):
        x, y, _ = points(labels[rows], probability[rows])
        label = f"{model}, {area_name} {area(labels[rows], probability[rows]):.3f}"
        axes.plot(*_thin(x, y), color=colour, linestyle=line, label=label)


def _mark_threshold(axes: Axes, x: float, y: float, cut: float) -> None:
    axes.plot(x, y, "o", color=BLUE, markeredgecolor=PAPER, markersize=8, label=f"threshold {cut:.3f}")


def one_vs_rest(name: str, labels: Array, probability: Array, classes: Sequence[str], kind: str) -> Markup:
    """ROC or precision-recall curve of each class against all others.

    Args:
        name: Unique on the page.
        labels: Class numbers, [N].
        probability: [N, C].
        classes: Names in label order.
        kind: `roc` or `pr`.
    """
    with drawing(4.3, 5.1) as (figure, axes):
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        for k, class_name in enumerate(classes):
            y, p = labels == k, probability[:, k]
            if not y.any() or y.all():
                continue
            if kind == "roc":
                x, height, _ = roc_curve(y, p)
                area = roc_auc(y, p)
            else:
                x, height, _ = precision_recall_curve(y, p)
                area = average_precision(y, p)
            colour, line, label = COLOURS[k % len(COLOURS)], ("-", "--")[k % 2], f"{spaced(class_name)} {area:.2f}"
            axes.plot(*_thin(x, height), color=colour, linestyle=line, label=label)
        if kind == "roc":
            _unit_square(axes, "1 - specificity", "sensitivity")
        else:
            _unit_square(axes, "recall", "precision")
        _legend_below(figure, axes, 2)
        title = {"roc": "ROC curve", "pr": "Precision-recall curve"}[kind]
        return inline(figure, name, f"{title} of each class against all others on the test split")


def calibration(name: str, before: ReliabilityBins, after: ReliabilityBins, stated: str) -> Markup:
    """Reliability diagram before and after temperature and bias, with how many patches each bin holds below.

    Args:
        name: Unique on the page.
        before: Without them.
        after: As served.
        stated: What the horizontal axis is.
    """
    with drawing(4.3, 4.5) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        for bins, colour, line, mark, label in (
            (before, ORANGE, "--", "s", "before calibration"),
            (after, BLUE, "-", "o", "after (served)"),
        ):
            filled = bins.count > 0
            axes.plot(
                bins.stated[filled], bins.observed[filled], color=colour, linestyle=line, marker=mark, markersize=4,
                label=label,
            )  # fmt: skip
        share = after.count / max(1, after.count.sum())
        axes.bar(after.lower + 0.5 / len(share), share * 0.25, width=0.9 / len(share), color=GREY, alpha=0.45)
        _unit_square(axes, stated, "observed frequency")
        _legend_below(figure, axes)
        title = "Calibration on the test split before and after temperature and bias; bars: share of the patches"
        return inline(figure, name, title)


def histogram(name: str, labels: Array, probability: Array, classes: Sequence[str], cut: float | None) -> Markup:
    """Distribution of P(positive) of each class, log counts, with the stored threshold."""
    with drawing(4.3, 4.5) as (figure, axes):
        edges = np.linspace(0, 1, 41)
        for k, colour in ((0, BLUE), (1, RED)):
            counts, _ = np.histogram(probability[labels == k], edges)
            axes.stairs(counts, edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(counts, edges, color=colour, linewidth=1.5, label=classes[k], linestyle=("-", "--")[k])
        if cut is not None:
            axes.axvline(cut, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label=f"threshold {cut:.3f}")
        axes.set(xlim=(0, 1), xlabel=f"P({classes[1]})", ylabel="patches (logarithmic)")
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        from matplotlib.ticker import FuncFormatter, NullLocator

        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_minor_locator(NullLocator())
        _legend_below(figure, axes)
        return inline(figure, name, "Histogram of the predicted probability for each class on the test split")


def scores(name: str, counts: Array, positive: str, cut: float | None) -> Markup:
    """Distribution of P(positive) over patches without labels, with the stored threshold.

    Args:
        name: Unique on the page.
        counts: Patches in each of several bins of equal width between 0 and 1.
        positive: Name of the positive class.
        cut: Threshold of the model.
    """
    with drawing(4.3, 3.2) as (figure, axes):
        edges = np.linspace(0, 1, len(counts) + 1)
        axes.stairs(counts, edges, color=BLUE, fill=True, alpha=0.25)
        axes.stairs(counts, edges, color=BLUE, linewidth=1.5)
        if cut is not None:
            axes.axvline(cut, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label=f"threshold {cut:.3f}")
            _legend_below(figure, axes)
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel=f"P({spaced(positive)})", ylabel="patches")
        return inline(figure, name, "Histogram of the predicted probability of all patches")


def risk_coverage(name: str, coverage: Array, error: Array, aurc: float) -> Markup:
    """Error among the patches that are answered, against their share, most certain first.

    Args:
        name: Unique on the page.
        coverage: Rising to 1, [K].
        error: [K].
        aurc: Area under the curve.
    """
    with drawing(4.3, 4.5) as (figure, axes):
        whole = float(error[-1]) if len(error) else 0.0
        axes.axhline(whole, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), label=f"all answered, error {whole:.3f}")
        axes.plot(*_thin(coverage, error), color=BLUE, label=f"least certain left out, AURC {aurc:.3f}")
        axes.set(xlim=(-0.02, 1.02), xlabel="coverage (share of the patches answered)", ylabel="error among them")
        # The first few patches are all or nothing.
        seen = error[coverage >= 0.05]
        axes.set_ylim(0, 1.1 * max(whole, float(seen.max()) if seen.size else 0.0, 0.01))
        _legend_below(figure, axes)
        return inline(figure, name, "Risk-coverage curve: error among the patches answered against their share on test")


def learning(
    name: str, history: Mapping[str, Sequence[float]], metric: str, best: int | None = None, watched: bool = False
) -> Markup:
    """One quantity over the epochs, train beside eval.

    Args:
        name: Unique on the page.
        history: Keras' names to one value per epoch.
        metric: Such as `loss` or `auc`.
        best: Epoch whose weights were exported, from 1; None where it was the last.
        watched: Whether this quantity decided on it.
    """
    from matplotlib.ticker import MaxNLocator

    with drawing(4.3, 3.0) as (figure, axes):
        for prefix, colour, line, mark, label in (("", ORANGE, "--", "s", "train"), ("val_", BLUE, "-", "o", "eval")):
            values = history.get(prefix + metric)
            if values:
                epochs = np.arange(1, len(values) + 1)
                axes.plot(epochs, values, color=colour, linestyle=line, marker=mark, markersize=4, label=label)
        if best is not None:
            axes.axvline(best, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label=f"best epoch {best}")
            values = history.get(f"val_{metric}", ())
            if watched and best <= len(values):
                axes.plot(best, values[best - 1], "o", color=BLUE, markeredgecolor=PAPER, markersize=9)
        axes.set(xlabel="epoch", ylabel={"auc": "AUC", "macro_f1": "macro-F1"}.get(metric, metric))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, max(1, len(history.get(f"val_{metric}") or history.get(metric, []))) + 0.5)
        axes.legend()
        return inline(figure, name, f"Learning curve: {metric} per epoch on train and eval")


def overlaid(name: str, histories: Sequence[tuple[str, Mapping[str, Sequence[float]]]], quantity: str) -> Markup:
    """One quantity of several runs over their epochs.

    Args:
        name: Unique on the page.
        histories: Run and its history: Keras' names to one value per epoch.
        quantity: Such as `val_loss`; runs without it are left out.
    """
    from matplotlib.ticker import MaxNLocator

    with drawing(4.3, 3.9) as (figure, axes):
        longest = 1
        for k, (run, history) in enumerate(histories):
            values = history.get(quantity) or []
            longest = max(longest, len(values))
            if values:
                colour, line = COLOURS[k % len(COLOURS)], ("-", "--", "-.")[k % 3]
                epochs = np.arange(1, len(values) + 1)
                axes.plot(epochs, values, color=colour, linestyle=line, marker="o", markersize=3, label=run)
        axes.set(xlabel="epoch", ylabel=spaced(quantity.removeprefix("val_")), xlim=(0.5, longest + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend_below(figure, axes)
        return inline(figure, name, f"{spaced(quantity.removeprefix('val_'))} on eval per epoch, a line for each run")


def overlaid_roc(name: str, labels: Array, runs: Sequence[tuple[str, Array]]) -> Markup:
    """ROC curves of several runs on the same patches.

    Args:
        name: Unique on the page.
        labels: 0 or 1, [N].
        runs: Run and its probabilities, [N].
    """
    with drawing(4.3, 4.5) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        for k, (run, probability) in enumerate(runs):
            x, y, _ = roc_curve(labels, probability)
            colour, line = COLOURS[k % len(COLOURS)], ("-", "--", "-.")[k % 3]
            axes.plot(*_thin(x, y), color=colour, linestyle=line, label=f"{run}, {roc_auc(labels, probability):.3f}")
        _unit_square(axes, "1 - specificity", "sensitivity")
        _legend_below(figure, axes)
        return inline(figure, name, "ROC curves of the runs on the test patches that all of them may be judged on")


def trend(name: str, runs: Sequence[Mapping[str, Any]], metric: str, title: str) -> Markup:
    """The primary metric of runs over time.

    Args:
        name: Unique on the page.
        runs: Oldest first: `when` (datetime), `estimate`, `low`, `high` (None where there is no interval), `promoted`
            and `champion`.
        metric: Name of the axis.
        title: For people who don't see it.
    """
    with drawing(8.8, 2.9) as (figure, axes):
        place = np.arange(1, len(runs) + 1)
        for x, run in zip(place, runs):
            if run["low"] is not None:
                axes.plot([x, x], [run["low"], run["high"]], color=MUTED, linewidth=1.2, solid_capstyle="round")
        for promoted, mark, label in ((False, "o", "refused"), (True, "D", "promoted")):
            at = [i for i, run in enumerate(runs) if bool(run["promoted"]) is promoted]
            if at:
                fill = BLUE if promoted else PAPER
                values = [runs[i]["estimate"] for i in at]
                axes.plot(place[at], values, mark, color=BLUE, markerfacecolor=fill, markersize=7, label=label)
        best = [i for i, run in enumerate(runs) if run["champion"]]
        if best:
            values = [runs[i]["estimate"] for i in best]
            axes.plot(place[best], values, "o", color=ORANGE, fillstyle="none", markersize=15, label="champion")
        # A day alone says nothing where all runs are of it.
        one_day = len({run["when"].date() for run in runs}) == 1
        days = [f"{run['when']:{'%m-%d %H:%M' if one_day else '%Y-%m-%d'}}" for run in runs]
        step = max(1, -(-len(runs) // 8))
        axes.set_xticks(place[::step], days[::step])
        axes.set(xlim=(0.4, len(runs) + 0.6), ylabel=metric)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
        return inline(figure, name, title)
