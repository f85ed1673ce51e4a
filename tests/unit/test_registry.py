import pytest

from pipeline import registry
from pipeline.errors import ConfigError, UnknownNameError

PLUGIN = """
from pipeline.benchmarks.base import Benchmark
from pipeline.scene import Answer


class Plugin(Benchmark):
    task = "qa"
    headline = "em"

    def samples(self, index, split):
        return []

    def parse(self, sample, output):
        return Answer()

    def score(self, samples, answers, index):
        return []
"""


def test_every_member_file_defines_one_concrete_class():
    for interface in registry.INTERFACES:
        files = registry.member_files(interface)
        assert files, interface
        for kind in files:
            assert registry.member_class(interface, kind).__module__ == f"pipeline.{interface}.{kind}"


def test_a_misspelt_kind_is_answered_with_the_nearest_one():
    with pytest.raises(UnknownNameError, match=r"unknown teacher 'vgtt', did you mean 'vggt'\?") as error:
        registry.member_class("teachers", "vgtt")
    assert "geometry" in str(error.value)


def test_a_plugin_folder_adds_members(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "plugged.py").write_text(PLUGIN)
    monkeypatch.setenv("PIPELINE_PLUGINS", str(tmp_path))
    assert "plugged" in registry.member_files("benchmarks")
    assert registry.create("benchmarks", {"name": "p", "kind": "plugged", "options": {}}).headline == "em"


def test_a_file_without_a_member_class_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "teachers"
    folder.mkdir()
    (folder / "empty_one.py").write_text("x = 1\n")
    monkeypatch.setenv("PIPELINE_PLUGINS", str(tmp_path))
    with pytest.raises(ConfigError, match="exactly one concrete Teacher, found 0"):
        registry.member_class("teachers", "empty_one")


BROKEN = {
    "import": ("import no_such_module_at_all\n", "ModuleNotFoundError: No module named 'no_such_module_at_all'", 1),
    "exit": ("import sys\nsys.exit(3)\n", "SystemExit: 3", 2),
    "syntax": ("x = 1\ndef (:\n", "SyntaxError: invalid syntax", 2),
    "init": (PLUGIN + "\n    def __init__(self, name, options):\n        self.size = {}['size']\n", "KeyError: 'size'", 20),
    "exit in init": (PLUGIN + "\n    def __init__(self, name, options):\n        raise SystemExit\n", "SystemExit", 20),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_plugin_that_fails_is_named_with_its_line(tmp_path, monkeypatch, fault):
    text, message, line = BROKEN[fault]
    file = tmp_path / "benchmarks" / "broken_one.py"
    file.parent.mkdir()
    file.write_text(text)
    monkeypatch.setenv("PIPELINE_PLUGINS", str(tmp_path))
    for _ in range(2):  # the second time as well: half of a module is not kept
        with pytest.raises(ConfigError) as error:
            registry.create("benchmarks", {"name": "p", "kind": "broken_one", "options": {}})
        assert f"the plug-in broken_one.py fails: {message}" in str(error.value)
        assert error.value.where == f"{file}, line {line}"
