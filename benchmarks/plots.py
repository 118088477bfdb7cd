"""Pictures of one size with grid and legend, as PNG. Needs matplotlib, which is loaded only here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from client.errors import ChatError

SIZE_INCH, DPI = (6.4, 3.6), 110
Paint = Callable[[Any], None]  # takes the axes


def picture(file: Path, title: str, paint: Paint, title_size: float | None = None) -> None:
    """Draws one figure. Without the library's version in the file, the same numbers give the same file."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=SIZE_INCH)
    paint(axes)
    axes.set_title(title, fontsize=title_size)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def curve(axes: Any, points: Iterable[tuple[float, float | None]], style: str = "-", **more: Any) -> None:
    """A line through the points that have a number, each of them marked."""
    kept = [(x, y) for x, y in points if y is not None]
    axes.plot([x for x, _ in kept], [y for _, y in kept], style, **{"marker": "o"} | more)


def pyplot() -> Any:
    """The plotting module, without a screen. Raises ChatError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ChatError(
            "NOT_FOUND", "matplotlib", "is not installed; run make setup or pip install matplotlib"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
