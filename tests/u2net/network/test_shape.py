"""Shapes of one's own, in TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from u2net.errors import ConfigError
from u2net.network.model import CONFIGS, STAGE_NAMES, StageWidths
from u2net.network.shape import check_name, difference_of_shapes, read_shape, shape_called

WIDTHS = "[widths]\n" + "\n".join(f"{name} = [2, 4]" for name in STAGE_NAMES)


def written(folder: Path, text: str) -> Path:
    path = folder / "portraits.toml"
    path.write_text(text)
    return path


def test_a_shape_is_read_and_named_after_its_file(tmp_path: Path) -> None:
    shape = read_shape(written(tmp_path, f"stem = 2\nsize = 256\n{WIDTHS}"))
    assert (shape.name, shape.stem, shape.size) == ("portraits", 2, 256)
    assert shape.widths == (StageWidths(2, 4),) * 11
    assert shape_called(str(tmp_path / "portraits.toml")) == shape


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[widths", "is no TOML"),
        (WIDTHS.replace("stage6 = [2, 4]", ""), "must give"),
        (WIDTHS.replace("stage6 = [2, 4]", "stage6 = [2]"), "stage6 is two numbers"),
        (WIDTHS.replace("stage6 = [2, 4]", "stage6 = [0, 4]"), "stage6 is two numbers"),
        (f"depth = 3\n{WIDTHS}", "says depth"),
        (f"size = 'big'\n{WIDTHS}", "size is 'big'"),
        (f"stem = 3\n{WIDTHS}", "stem must be 1, 2 or 4"),
    ],
)
def test_what_is_no_shape_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_shape(written(tmp_path, text))


def test_names_are_known_and_differences_told() -> None:
    assert shape_called("u2netp") == CONFIGS["small"]
    with pytest.raises(ConfigError, match=r"no model is called 'nope'.*TOML"):
        shape_called("nope")
    assert difference_of_shapes(CONFIGS["small"], CONFIGS["small"]) == ""
    told = difference_of_shapes(CONFIGS["full"], CONFIGS["small"])
    assert told.startswith("stage1 [32, 64], not [16, 64]") and "more" in told


@pytest.mark.parametrize("name", ["", "a b", "../x", "Ä", "-x", "x" * 65])
def test_names_that_cannot_be_folders(name: str) -> None:
    with pytest.raises(ConfigError, match="a model's name"):
        check_name(name)
