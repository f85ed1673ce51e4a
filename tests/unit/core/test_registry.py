import pytest

from pipeline.core import registry
from pipeline.core.errors import ConfigError, UnknownNameError

PLUGIN = """
from pipeline.benchmarks.base import Benchmark
from pipeline.scenes.types import Answer


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


def _plugins(tmp_path, monkeypatch, **files):
    for name, text in files.items():
        path = tmp_path / "benchmarks" / name.replace("__", "/").replace("init", "__init__")
        path = path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PIPELINE_PLUGINS", str(tmp_path))


def test_a_member_may_be_a_package_with_modules_of_its_own(tmp_path, monkeypatch):
    member = PLUGIN.replace("\n\nclass", "\nfrom .parts import HEADLINE\n\n\nclass").replace('"em"', "HEADLINE")
    _plugins(tmp_path, monkeypatch, packaged__init=member, packaged__parts='HEADLINE = "em"\n')
    assert registry.create("benchmarks", {"name": "p", "kind": "packaged", "options": {}}).headline == "em"


def test_a_package_without_a_member_class_is_refused(tmp_path, monkeypatch):
    _plugins(tmp_path, monkeypatch, hollow__init="", hollow__member=PLUGIN)
    with pytest.raises(ConfigError, match="the benchmark 'hollow' must define exactly one concrete Benchmark") as error:
        registry.member_class("benchmarks", "hollow")
    assert error.value.where == str(tmp_path / "benchmarks" / "hollow" / "__init__.py")


@pytest.mark.parametrize("names", [("twice", "twice__init"), ("scanqa",)], ids=["file and package", "name of the project's"])
def test_two_members_of_one_name_are_refused(tmp_path, monkeypatch, names):
    """Also a plug-in that would take, or lose, the place of a member of the project."""
    _plugins(tmp_path, monkeypatch, **dict.fromkeys(names, PLUGIN))
    with pytest.raises(ConfigError, match=f"two benchmarks have the name '{names[0]}'") as error:
        registry.member_files("benchmarks")
    assert str(tmp_path) in str(error.value.where)


def test_a_fault_beside_a_plugins_package_is_named_with_its_own_file(tmp_path, monkeypatch):
    _plugins(tmp_path, monkeypatch, torn__init="from . import parts\n", torn__parts="x = 1\ndef (:\n")
    with pytest.raises(ConfigError, match="SyntaxError") as error:
        registry.member_class("benchmarks", "torn")
    assert error.value.where == f"{tmp_path / 'benchmarks' / 'torn' / 'parts.py'}, line 2"


def test_a_plugin_folder_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_PLUGINS", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"there is no folder .*missing"):
        registry.member_files("teachers")
