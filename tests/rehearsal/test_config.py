"""A wrong config is refused with the key's dotted name, the bad value and the valid choices."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from rehearsal.config import command_line, convert, plain, read_toml
from rehearsal.errors import RehearsalError


class Optimiser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rate: Annotated[float, Meta(gt=0)] = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    timeout_s: Annotated[float, Meta(ge=0)] = 1.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    steps: Annotated[int, Meta(ge=1)] = 10
    out: Path = Path("runs/here")
    decoding: Literal["greedy", "mean"] = "greedy"
    optimiser: Optimiser = Optimiser()
    stages: tuple[Stage, ...] = ()
    limit: int | None = None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stpes": 3}, "unknown key 'stpes'; did you mean 'steps'?; valid keys: steps, out, decoding, "),
        ({"xyz": 3}, "unknown key 'xyz'; valid keys: "),
        ({"optimiser": {"rates": 1}}, "unknown key 'optimiser.rates'; did you mean 'rate'?; valid keys: rate, betas"),
        (
            {"stages": [{"name": "a"}, {"name": "b", "timeout_ms": 5}]},
            "unknown key 'stages[1].timeout_ms'; did you mean 'timeout_s'?; valid keys: name, timeout_s",
        ),
        ({"stages": [{}]}, "missing key 'stages[0].name'"),
        ({"optimiser": {"rate": -1.0}}, "optimiser.rate = -1.0: Expected `float` > 0.0"),
        ({"stages": [{"name": "a", "timeout_s": -2}]}, "stages[0].timeout_s = -2: Expected `float` >= 0.0"),
        ({"optimiser": {"betas": [0.9, "x"]}}, "optimiser.betas[1] = 'x': Expected `float`, got `str`"),
        ({"optimiser": {"betas": [0.9]}}, "optimiser.betas = [0.9]: Expected `array` of length 2, got 1"),
        ({"decoding": "greddy"}, "unknown decoding 'greddy'; valid: greedy, mean"),
        ({"steps": "10"}, "steps = '10': Expected `int`, got `str`"),
        ({"steps": 1.5}, "steps = 1.5: Expected `int`, got `float`"),
        ({"optimiser": {"betas": [float("nan"), 1.0]}}, "optimiser.betas[0] = nan: a finite number is needed"),
        ({"optimiser": {"rate": float("inf")}}, "optimiser.rate = inf: a finite number is needed"),
    ],
)
def test_message_names_the_key_the_value_and_the_choices(data: dict, message: str) -> None:
    with pytest.raises(RehearsalError) as caught:
        convert(data, Config, source="a.toml")
    assert str(caught.value).startswith(f"a.toml: {message}")


def test_integers_serve_as_floats_and_lists_as_tuples() -> None:
    config = convert({"optimiser": {"rate": 1, "betas": [0, 1]}, "out": "x/y"}, Config, source="a")
    assert config.optimiser == Optimiser(rate=1.0, betas=(0.0, 1.0))
    assert config.out == Path("x/y")


def test_plain_data_converts_back_to_the_same_config() -> None:
    config = Config(stages=(Stage(name="a"),), out=Path("elsewhere"), limit=3)
    assert msgspec.json.decode(msgspec.json.encode(plain(config))) == plain(config) | {
        "stages": [{"name": "a", "timeout_s": 1.0}], "optimiser": {"rate": 1e-4, "betas": [0.9, 0.999]}
    }
    assert convert(plain(config), Config, source="record") == config


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("steps = = 3")
    with pytest.raises(RehearsalError, match=r"broken\.toml: not valid TOML: .*line 1"):
        read_toml(tmp_path / "broken.toml", Config)
    with pytest.raises(RehearsalError, match=r"no such file: .*absent\.toml; in .*: broken\.toml"):
        read_toml(tmp_path / "absent.toml", Config)
    with pytest.raises(RehearsalError, match="no TOML file"):
        read_toml(tmp_path / "no_folder" / "absent.toml", Config)


def test_options_override_the_file_which_overrides_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('steps = 20\ndecoding = "mean"\n[optimiser]\nrate = 0.5\n')
    for words in (["--config", str(file), "--steps", "30"], ["--steps", "30", f"--config={file}"]):
        config = command_line(Config, words)
        assert (config.steps, config.decoding, config.optimiser.rate, config.limit) == (30, "mean", 0.5, None)
    assert command_line(Config, ["--optimiser.rate", "2"]).optimiser.rate == 2.0


def test_options_are_checked_like_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RehearsalError, match=r"command line: optimiser\.rate = -1\.0: Expected `float` > 0"):
        command_line(Config, ["--optimiser.rate", "-1"])
    with pytest.raises(RehearsalError, match="--config needs a file"):
        command_line(Config, ["--config"])
    with pytest.raises(SystemExit) as caught:
        command_line(Config, ["--no-such-option", "1"])
    assert caught.value.code == 2
    assert "no-such-option" in capsys.readouterr().err
