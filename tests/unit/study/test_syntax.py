"""What of a file decides the digest of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.study.syntax import NAMELESS, Imported, Use, read_source

FUNCTION = """
def f(x):
    if x < 0:
        raise ValueError(f"{x} is too small")
    return x + 1
"""
SAME = {
    "comments and layout": 'def f(x):\n    """What it does."""\n    # why\n\n    if x<0:  raise ValueError(f"{x}")\n'
    "    return (x  +  1)\n",
    "text of an error": FUNCTION.replace("is too small", "is below 0"),
    "an import elsewhere": "from elsewhere import g\n" + FUNCTION,
    "for type checkers": FUNCTION.replace("    return", "    if TYPE_CHECKING:\n        x: int\n    return"),
    "something else": FUNCTION + "\n\ndef g(): return 1\n",
}
OTHER = {
    "a number": FUNCTION.replace("1", "2"),
    "a condition": FUNCTION.replace("<", "<="),
    "another error": FUNCTION.replace("ValueError", "TypeError"),
    "a default": FUNCTION.replace("f(x)", "f(x=0)"),
    "a decorator": "@cache" + FUNCTION,
}


def digest_of(folder: Path, text: str, name: str = "f", without: tuple[str, ...] = ()) -> str:
    path = folder / f"m{len(list(folder.iterdir()))}.py"
    path.write_text(text, encoding="utf-8")
    return read_source(path, without).parts[name].digest


@pytest.mark.parametrize("change", SAME)
def test_what_changes_no_behaviour_changes_no_digest(change: str, tmp_path: Path) -> None:
    assert digest_of(tmp_path, FUNCTION) == digest_of(tmp_path, SAME[change])


@pytest.mark.parametrize("change", OTHER)
def test_what_changes_behaviour_changes_the_digest(change: str, tmp_path: Path) -> None:
    assert digest_of(tmp_path, FUNCTION) != digest_of(tmp_path, OTHER[change])


def test_texts_for_people_change_nothing_and_other_texts_do(tmp_path: Path) -> None:
    options = 'class f:\n    steps: int = Field(3, description="How many.")\n    kind: str = "a"\n'
    assert digest_of(tmp_path, options) == digest_of(tmp_path, options.replace("How many", "Number of steps"))
    assert digest_of(tmp_path, options) != digest_of(tmp_path, options.replace('"a"', '"b"'))
    printed = 'def f(x):\n    print("done", file=x)\n    x.write("done")\n'
    assert digest_of(tmp_path, printed) == digest_of(tmp_path, printed.replace('print("done"', 'print("ready"'))
    assert digest_of(tmp_path, printed) != digest_of(tmp_path, printed.replace('write("done"', 'write("ready"'))


def test_the_digest_is_the_same_under_every_python(tmp_path: Path) -> None:
    """These digests were made by 3.11, 3.12 and 3.13, whose trees and texts of trees differ."""
    text = (
        "class f(A, metaclass=B):\n"
        "    @property\n    def a(self, *, b=None, **c): return [f'{x!r:>{b}}' f\"{'é'}\" for x in self if (y := x)]\n"
        "    async def d(self, /, e: int | None = -1.5e-7) -> bytes:\n"
        "        match e:\n"
        "            case {'k': [1, *_], **rest} if rest: return b'\\x00'\n"
        "            case _: return u'\\u0378'\n"
        "        try: global z; z = lambda q=...: 1_000 @ q\n"
        "        except* OSError as error: del z\n"
        "        with open(e) as (g, h), i: assert not g < h <= 3j, f'{g=}'\n"
    )
    assert digest_of(tmp_path, text) == "7790adcb00548b6d"


def test_methods_are_left_out_with_what_only_they_refer_to(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "from a import metric, read\n"
        "class f:\n"
        "    def samples(self):\n        def score(): return read\n        return score()\n"
        "    def score(self): return metric(self._score_one())\n"
        "    def _score_one(self): return helper()\n"
        "    def _scored(self): return 1\n"
        "def helper(): return 1\n",
        encoding="utf-8",
    )
    source = read_source(path)
    assert {use.name for use in source.parts["f"].uses} >= {"metric", "read", "helper"}
    assert {use.name for use in read_source(path, ("score",)).parts["f"].uses} & {"metric", "read", "helper"} == {"read"}
    changed = path.read_text(encoding="utf-8").replace("_scored(self): return 1", "_scored(self): return 2")
    assert read_source(path, ("score",)).parts["f"].digest != digest_of(tmp_path, changed, without=("score",))


def test_names_are_found_where_they_are_imported(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from a import Hint\n"
        "from . import b\n"
        "LIMIT = 3\n"
        "b.register(LIMIT)\n"
        "def f(x: Hint):\n    from c import d as e\n    return e(b.g, LIMIT)\n",
        encoding="utf-8",
    )
    source = read_source(path)
    assert set(source.parts["f"].uses) == {
        Use("e", "", Imported("c", "d")),
        Use("b", "g", Imported("", "b", 1)),
        Use("LIMIT"),
    }
    assert set(source.parts[NAMELESS].uses) == {Use("b", "register", Imported("", "b", 1)), Use("LIMIT")}


def test_a_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text("x = 1\ndef (:\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"m\.py is not Python") as error:
        read_source(path)
    assert error.value.where == f"{path}, line 2"


def test_texts_that_a_program_computes_with_count(tmp_path: Path) -> None:
    """`description=` of another call than pydantic's or argparse's, and HELP of a file that is no command."""
    before = 'p = SimpleNamespace(description="a chair")\nHELP = 3\ndef f():\n    return len(p.description) * HELP\n'
    path = tmp_path / "m.py"
    for part, text in (("p", before.replace("a chair", "a table")), ("HELP", before.replace("3", "4"))):
        path.write_text(before, encoding="utf-8")
        digest = read_source(path).parts[part].digest
        path.write_text(text + "\n", encoding="utf-8")
        assert read_source(path).parts[part].digest != digest
