"""Golden files: ``pytest tests/golden --update-golden`` writes them anew; read the diff before you commit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", default=False, help="write golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("prompts/scanqa.txt", text)``: compare with the file of that name, or write it with --update-golden."""

    def check(name: str, text: str) -> None:
        path = Path(__file__).parent / name
        if request.config.getoption("--update-golden", default=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"{path.name} is missing: run pytest tests/golden --update-golden"
        assert text == path.read_text(encoding="utf-8"), f"{name} drifted: if wanted, pytest tests/golden --update-golden"

    return check
