"""TopKShareDisplay: which kinds of documents fill the first ranks."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from grclip.diagnostics import ModalityBias, modality_bias
from grclip.diagnostics._search import check_methods, search
from grclip.items import SearchTask
from grclip.plots._canvas import Canvas, canvas, check_drawing
from grclip.plots._order import check_order
from grclip.plots._palette import Look, Theme, looks_of_kinds

_WIDTH = 0.8  # of a group of bars, where groups are 1 apart
_LETTERS = 72  # of names of methods that fit side by side


class TopKShareDisplay:
    """Share of each kind of document in the top k, by method, against its share in the corpus.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    biases : dict of str to ModalityBias
        By method, as `grclip.diagnostics.modality_bias` returns them, of one corpus and one k.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure that holds it.
    bars_ : dict of str to matplotlib BarContainer
        By kind, a bar for each method; a share that is not known has no bar, and is marked "n/a".

    Raises
    ------
    ModuleNotFoundError
        From the methods, where matplotlib is not installed.

    See Also
    --------
    grclip.diagnostics.modality_bias : The numbers.

    Notes
    -----
    Equal shares are what to expect of a search in which each kind is as often relevant as it is frequent. Error bars
    are bootstrap intervals over queries.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items, SearchTask
    >>> from grclip.diagnostics import modality_bias
    >>> from grclip.plots import TopKShareDisplay
    >>> x, missing = np.eye(4), np.full((4, 4), np.nan)
    >>> corpus = Items({"text": np.vstack([x, missing]), "image": np.vstack([missing, x])})
    >>> task = SearchTask(Items({"query": x}), corpus)
    >>> bias = modality_bias(task, [[0, 1], [1, 2], [2, 3], [3, 4]], k=2)
    >>> display = TopKShareDisplay.from_predictions({"raw": bias})
    >>> {kind: float(bars[0].get_height()) for kind, bars in display.bars_.items()}
    {'text': 87.5, 'image': 12.5}
    """

    def __init__(self, biases: Mapping[str, ModalityBias]) -> None:
        self.biases = biases

    @classmethod
    def from_estimator(
        cls,
        methods: Any,
        task: Any,
        qrels: Any = None,
        *,
        k: int = 10,
        ax: Any = None,
        theme: str = "light",
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Search with each method, and draw what fills the top k.

        Parameters
        ----------
        methods : fitted pipeline, or dict of str to fitted pipeline
            Pipelines that end in `ExactRetriever`.
        task : SearchTask
            Encoded queries and documents.
        qrels : list of dict, default=None
            Grades by document row, ``{row: grade}`` for each query; ``biases`` then has scores, which are not drawn.
        k : int, default=10
            Ranks that count.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.
        **options
            Further arguments of `grclip.diagnostics.modality_bias`: ``confidence``, ``n_resamples``, ...

        Returns
        -------
        TopKShareDisplay
            As drawn.

        Raises
        ------
        TypeError, ValueError
            As `grclip.diagnostics.modality_bias` and `plot`.
        """
        check_drawing(ax, theme, "TopKShareDisplay")
        check_order(methods, "methods, task, qrels")
        biases = {
            method: modality_bias(task, search(pipeline, task, k)[1], qrels, k=k, **options)
            for method, pipeline in check_methods(methods).items()
        }
        return cls(biases).plot(ax=ax, theme=theme, name=name)

    @classmethod
    def from_predictions(
        cls, biases: Any, *unknown: Any, ax: Any = None, theme: str = "light", name: str | None = None
    ) -> Self:
        """Draw shares that were measured.

        Parameters
        ----------
        biases : ModalityBias, or dict of str to ModalityBias
            By method, as `grclip.diagnostics.modality_bias` returns them, of one corpus and one k.
        *unknown
            Refused: a task and a ranking go to `grclip.diagnostics.modality_bias` first.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.

        Returns
        -------
        TopKShareDisplay
            As drawn.

        Raises
        ------
        TypeError
            If biases hold anything else.
        ValueError
            If biases are empty, or of several corpora or several k, or theme is unknown.
        """
        if unknown or isinstance(biases, SearchTask):
            raise TypeError(
                f"from_predictions takes the result of modality_bias, or a dict of such by method; got "
                f"{', '.join(type(each).__name__ for each in (biases, *unknown))}: call "
                "from_predictions(modality_bias(task, ranking))"
            )
        return cls(_checked(biases)).plot(ax=ax, theme=theme, name=name)

    def plot(self, *, ax: Any = None, theme: str = "light", name: str | None = None) -> Self:
        """Draw the shares.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.

        Returns
        -------
        TopKShareDisplay
            This instance, with ``ax_``, ``figure_`` and ``bars_``.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        TypeError
            If ax is no Axes.
        ValueError
            If theme is unknown.
        """
        first = next(iter(self.biases.values()))
        with canvas(ax, theme, "TopKShareDisplay") as drawn:
            self.ax_, self.figure_ = drawn.axes[0], drawn.figure
            looks = looks_of_kinds(first.kinds, drawn.theme)
            self.bars_ = {kind: self._bars(drawn, place, looks[kind]) for place, kind in enumerate(first.kinds)}
            self._name_axes(first.k, name)
            drawn.legend(self.ax_.get_legend_handles_labels()[0], columns=4)
        return self

    def _bars(self, drawn: Canvas, place: int, look: Look) -> Any:
        """The bars of one kind, with intervals, values, and the share in the corpus."""
        biases = list(self.biases.values())
        kinds, text = biases[0].kinds, drawn.theme.text
        width = _WIDTH / len(kinds)
        at = np.arange(len(biases)) + (place - (len(kinds) - 1) / 2) * width
        top, corpus = (
            100 * np.array([share[place] for share in shares])
            for shares in ([bias.top_share for bias in biases], [bias.corpus_share for bias in biases])
        )
        ends = 100 * np.array([bias.interval[place] for bias in biases])
        shape = {"color": look.colour, "hatch": look.hatch, "edgecolor": drawn.theme.background}
        bars = self.ax_.bar(at, top, 0.9 * width, label=kinds[place], **shape)
        self.ax_.errorbar(at, top, np.abs(ends.T - top), fmt="none", ecolor=text, capsize=3)
        told = "share in the corpus" if place == len(kinds) - 1 else None
        self.ax_.hlines(corpus, at - width / 2, at + width / 2, color=text, linestyle=(0, (2, 1)), label=told)
        self._tell(at, top, np.fmax(top, ends[:, 1]), drawn.theme)
        return bars

    def _tell(self, at: NDArray, top: NDArray, ends: NDArray, theme: Theme) -> None:
        """Each share as a number above its bar and interval; a share that is not known is not 0."""
        box = {"facecolor": theme.background, "edgecolor": "none", "pad": 1}  # lines end beside the number
        where = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
        for x, value, end in zip(at, top, np.nan_to_num(ends), strict=True):
            told = "n/a" if np.isnan(value) else f"{value:.0f}"
            self.ax_.annotate(told, (x, end), **where, color=theme.text, bbox=box)

    def _name_axes(self, k: int, name: str | None) -> None:
        """Labels of both axes, the methods, and the title."""
        width = max(6, _LETTERS // len(self.biases) - 2)
        self.ax_.set_xticks(range(len(self.biases)), [fill(method, width) for method in self.biases])
        self.ax_.set(xlabel="method", ylabel=f"share of the top {k} (%)", ylim=(0, 105))
        self.ax_.set_title(f"What fills the top {k}" if name is None else name)


def _checked(biases: Any) -> dict[str, ModalityBias]:
    """Biases by method, of one corpus and one k."""
    named = dict(biases) if isinstance(biases, Mapping) else {"ranking": biases}
    if not named:
        raise ValueError("biases is empty; give a ModalityBias, or a dict from names of methods to them")
    for name, bias in named.items():
        if not isinstance(bias, ModalityBias):
            where = f"biases[{name!r}]" if isinstance(biases, Mapping) else "biases"
            raise TypeError(f"{where} must be the ModalityBias that modality_bias returns; got {type(bias).__name__}")
    first, *rest = named.values()
    for bias in rest:
        if (bias.kinds, bias.k) != (first.kinds, first.k):
            raise ValueError(
                f"biases are of the top {first.k} of {', '.join(first.kinds)} and of the top {bias.k} of "
                f"{', '.join(bias.kinds)}; compare methods on one corpus and with one k"
            )
    return named
