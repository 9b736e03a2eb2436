"""Tables in Markdown, and how a figure stands in one."""

from collections.abc import Mapping, Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose first row is its head; the first column is to the left, the others to the right."""
    head, *body = rows
    alignment = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, alignment, *body))


def success_cell(figures: Mapping[str, float], name: str) -> str:
    """Returns `80.0 [67.0, 88.8]` in per cent, or a dash when the figure is not there."""
    if name not in figures:
        return "–"
    rate = f"{100 * figures[name]:.1f}"
    if f"{name}.low" not in figures:
        return rate
    return f"{rate} [{100 * figures[f'{name}.low']:.1f}, {100 * figures[f'{name}.high']:.1f}]"
