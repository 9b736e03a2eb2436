"""The README's tables of LIBERO: the engine, what training reaches, the expert, and LIBERO-PRO."""

from collections.abc import Callable, Mapping

from rehearsal.results import Result
from training.studies.markdown_table import markdown_table, success_cell

STAGES = {
    "sft": "SFT",
    "replays_sft": "SFT on replays",
    "grpo": "GRPO",
    "sft_held_out": "SFT, held out",
    "replays_sft_held_out": "SFT on replays, held out",
    "grpo_held_out": "GRPO, held out",
}

_Cell = Callable[[Mapping[str, float]], str]


def _number(name: str, form: str = "{:.1f}") -> _Cell:
    return lambda figures: form.format(figures[name]) if name in figures else "–"


def _share(name: str) -> _Cell:
    return lambda figures: success_cell(figures, name)


# Words, then `exact` and `fast`.
_ENGINE: tuple[tuple[str, _Cell, _Cell], ...] = (
    ("control step with one picture in eight [ms]", _number("exact_ms_per_step", "{:.2f}"),
     _number("fast_ms_per_step", "{:.2f}")),
    ("times as fast as stock", _number("speedup_exact"), _number("speedup_fast")),
    ("times as fast, with two pictures in eight", _number("speedup_exact_two_cameras"),
     _number("speedup_fast_two_cameras")),
    ("physics and control over a bare `mj_step` loop", _number("physics_over_bare_exact", "{:.2f}"),
     _number("physics_over_bare_fast", "{:.2f}")),
    ("same outcome as stock, replayed [%]", _share("outcome_agreement_exact"), _share("outcome_agreement_fast")),
    ("end effector off stock, free motion [m]", _number("eef_error_m", "{:.1e}"),
     _number("eef_error_fast_m", "{:.1e}")),
)  # fmt: skip


def engine(result: Result) -> str:
    """Returns a column for each setting, and in words what is known of one of them alone."""
    figures = result.figures
    rows = [
        ["", "exact", "fast"],
        *([words, exact(figures), fast(figures)] for words, exact, fast in _ENGINE),
    ]
    rows += [
        [
            f"share of {part} [%]",
            *(_per_cent(figures, f"share_{part}_{setting}") for setting in ("exact", "fast")),
        ]
        for part in ("physics", "rendering", "python")
    ]
    said = []
    if "stock_ms_per_step" in figures:
        said.append(
            f"A control step of stock takes {figures['stock_ms_per_step']:.0f} ms, on one core as all here."
        )
    if "image_identity_exact" in figures:
        said.append(
            f"Pictures: {100 * figures['image_identity_exact']:.2f} % of the bytes of `exact` are the stock camera's;"
            f" `fast` is at {figures['psnr_fast_db']:.1f} dB ({figures['psnr_fast_db.min']:.1f} dB at worst)."
        )
    if "outcome_agreement_exact.n" in figures:
        said.append(
            f"{figures['outcome_agreement_exact.n']:.0f} episodes were replayed; stock ended"
            f" {100 * figures['stock_success_in_replays']:.0f} % of them with success; the goal's test agreed on"
            f" {100 * figures['predicate_agreement']:.2f} % of {figures['predicate_agreement.n']:,.0f} states."
        )
    return f"{markdown_table(rows)}\n{' '.join(said)}"


def training(result: Result) -> str:
    """Returns a row for each task."""
    figures = result.figures
    rows = [["task", *STAGES.values(), "minutes"]]
    rows += [
        [
            task,
            *(success_cell(figures, f"{task}.{stage}") for stage in STAGES),
            _number(f"{task}.minutes", "{:.0f}")(figures),
        ]
        for task in sorted({task_of(name) for name in figures})
    ]
    return (
        f"{markdown_table(rows)}\nGreedy success in %, with 95 % interval: on the 50 stored initial states, and on as"
        " many that training never saw. SFT: on one demonstration. Where SFT on replays is given, GRPO begins there:"
        " the same demonstration, played again from other initial states. Minutes: of GRPO's rollouts and updates."
    )


def expert(result: Result) -> str:
    """Returns a row for each suite and a column for each task."""
    figures = result.figures
    suites = sorted({name.partition(".")[0] for name in figures})
    numbers = sorted({int(part) for name in figures if (part := name.split(".")[1]).isdigit()})
    rows = [["suite", "mean", *map(str, numbers)]]
    rows += [
        [suite, *(_per_cent(figures, f"{suite}.{column}") for column in ("mean", *numbers))]
        for suite in suites
    ]
    return f"{markdown_table(rows)}\nSuccess of the scripted expert on the stored initial states in %, task by task."


def protocols(result: Result) -> str:
    """Returns a row for each suite that was tried."""
    figures = result.figures
    rows = [["suite", "success", "episodes"]]
    rows += [
        [suite, success_cell(figures, f"{suite}.mean"), _number(f"{suite}.mean.n", "{:.0f}")(figures)]
        for suite in sorted({name.partition(".")[0] for name in figures})
    ]
    return f"{markdown_table(rows)}\nGreedy success in %, with 95 % interval; a suite's ending says what was changed."


def task_of(name: str) -> str:
    """Returns `<suite>.<number>` of a figure's name."""
    return ".".join(name.split(".")[:2])


def _per_cent(figures: Mapping[str, float], name: str) -> str:
    return f"{100 * figures[name]:.0f}" if name in figures else "–"
