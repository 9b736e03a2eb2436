"""Learning curves of reinforcement: success of the greedy and of the sampled policy against steps, a panel a task.

A plot carries a digest of the figures it was drawn from, so that whether it is current does not depend on the version
of matplotlib.
"""

import hashlib
import re
from pathlib import Path

import matplotlib
import msgspec
from matplotlib.figure import Figure

from rehearsal.errors import RehearsalError
from rehearsal.results import Result

# Okabe and Ito's blue and vermilion, told apart by colour-blind readers too.
KINDS = {"greedy": ("#0072B2", "-", "greedy (served)"), "sampled": ("#D55E00", "--", "sampled (explored)")}
_FIGURE = re.compile(r"(?P<task>[\w.]+)\.step_(?P<step>\d+)\.(?P<kind>greedy|sampled)")

Curve = list[tuple[int, float]]


def curves(result: Result) -> dict[str, dict[str, Curve]]:
    """Returns task -> kind -> [(step, success in [0, 1])] in the order of steps; other figures are passed over."""
    found: dict[str, dict[str, Curve]] = {}
    for name, value in result.figures.items():
        if match := _FIGURE.fullmatch(name):
            found.setdefault(match["task"], {}).setdefault(match["kind"], []).append((int(match["step"]), value))
    return {task: {kind: sorted(points) for kind, points in kinds.items()} for task, kinds in sorted(found.items())}


def digest(result: Result) -> str:
    return hashlib.sha256(msgspec.json.encode(result.figures, order="sorted")).hexdigest()[:16]


def is_current(path: Path, result: Result) -> bool:
    """Returns whether the plot was drawn from these figures."""
    return path.is_file() and f"figures {digest(result)}" in path.read_text(encoding="utf-8")


def write_plot(path: Path, result: Result) -> None:
    """Draws an SVG; raises RehearsalError when the result holds no curve."""
    tasks = curves(result)
    if not tasks:
        raise RehearsalError(f"no learning curve for {path}: figures are named <task>.step_<n>.greedy or .sampled")
    columns = min(2, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    for panel, (task, kinds) in zip(panels, tasks.items(), strict=False):
        for kind, points in kinds.items():
            colour, style, label = KINDS[kind]
            steps, success = zip(*points, strict=True)
            panel.plot(steps, [100 * s for s in success], style, color=colour, marker="o", markersize=3, label=label)
        panel.set_title(task.replace("_", " "), fontsize=10, loc="left")
        panel.set_ylim(0, 102)
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("reinforcement step", fontsize=9)
    for row in range(rows):
        panels[row * columns].set_ylabel("success [%]", fontsize=9)
    panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    save_figure(figure, path, result)


def save_figure(figure: Figure, path: Path, result: Result) -> None:
    """Writes an SVG that says which figures it was drawn from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed salt and no date: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "rehearsal"}):
        figure.savefig(path, metadata={"Date": None, "Description": f"figures {digest(result)}"})
