"""Stores that are linked, moved, copied, replaced, or have something in their way."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.__main__ import main
from pipeline.core.errors import EnvironmentFaultError, StoreError
from pipeline.features import arrays
from pipeline.features.manifest import ViewEntry, ViewManifest, source_reference
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec


def rewrite(folder: Path, spec: StoreSpec, features_of, frames, scene_id: str = "a") -> np.ndarray:
    """Store a scene, whatever is there, and read it."""
    with FeatureWriter(folder, spec) as writer:
        writer.write(scene_id, frames, features_of("new"))
        writer.finish()
    found = FeatureReader([folder / "manifest.json"]).read(scene_id, frames).tokens
    np.testing.assert_allclose(found, features_of("new").tokens, rtol=2**-8)
    return found


def test_a_store_on_another_disk_behind_a_link(
    tmp_path: Path, complete_shard: Path, spec: StoreSpec, features_of, frames
) -> None:
    """features.zarr is a link: read, resumed and made anew through it; the link stays."""
    link, real = complete_shard.parent / "features.zarr", tmp_path / "scratch.zarr"
    link.rename(real)
    link.symlink_to(real)
    FeatureReader([complete_shard]).read("a", frames)
    rewrite(complete_shard.parent, spec, features_of, frames, "d")
    complete_shard.unlink()
    rewrite(complete_shard.parent, dataclasses.replace(spec, weights="other"), features_of, frames)
    assert link.is_symlink()
    assert sorted(f.name for f in (real / "tokens").iterdir()) == ["a", "zarr.json"]


@pytest.mark.parametrize("kind", ["file", "link", "broken link"])
def test_what_stands_where_a_scene_goes_is_replaced(tmp_path, complete_shard: Path, spec, features_of, frames, kind) -> None:
    """A link is removed, never what it points to."""
    place, other = complete_shard.parent / "features.zarr/tokens/a", tmp_path / "other"
    shutil.move(place, other)
    if kind == "file":
        place.write_bytes(b"x")
    else:
        place.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    frames = tuple(f"n{frame}" for frame in frames)
    rewrite(complete_shard.parent, spec, features_of, frames)
    assert place.is_dir()
    assert not place.is_symlink()
    assert sorted(f.name for f in other.iterdir()) == ["c.0.0.0.0", "zarr.json"]


def test_a_manifest_behind_a_link(tmp_path: Path, complete_shard: Path, frames) -> None:
    link = tmp_path / "chosen.json"
    link.symlink_to(complete_shard)
    assert FeatureReader([link]).read("b", frames).tokens.shape == (3, 3, 4, 5)


def test_a_view_in_a_linked_folder_and_a_moved_tree(tmp_path: Path, complete_shard: Path, spec: StoreSpec, frames) -> None:
    """A view names its sources relative to where it really lies, so both ways to it work, and so does the tree elsewhere."""
    tree = tmp_path / "tree"
    shutil.copytree(complete_shard.parent, tree / "geometry" / "shard0")
    view = tree / "far" / "away" / "shuffled" / "manifest.json"
    view.parent.mkdir(parents=True)
    (tree / "shuffled").symlink_to(view.parent)
    linked = tree / "shuffled" / "manifest.json"
    derived = dataclasses.replace(spec, teacher="shuffled", kind="view")
    source = source_reference(tree / "geometry" / "shard0" / "manifest.json", linked)
    ViewManifest(derived, {"a": ViewEntry("b", frames)}, (source,)).write(linked)
    for path in (view, linked):
        assert FeatureReader([path]).read("a", frames).tokens.shape == (3, 3, 4, 5)
    tree.rename(tmp_path / "moved")
    FeatureReader([tmp_path / "moved" / view.relative_to(tree)]).read("a", frames)


def test_arrays_that_are_not_there_are_mended_by_the_command_that_is_named(complete_shard: Path, frames) -> None:
    """Only the manifest was copied, say: `rm -r` of nothing would end the command that the message names."""
    shutil.rmtree(complete_shard.parent / "features.zarr")
    with pytest.raises(StoreError, match="damaged") as caught:
        FeatureReader([complete_shard]).read("a", frames)
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("rm -rf ")


def test_the_command_that_mends_survives_blanks(tmp_path: Path, complete_shard: Path, frames) -> None:
    folder = tmp_path / "my results"
    shutil.move(complete_shard.parent, folder)
    (folder / "features.zarr/tokens/a/zarr.json").unlink()
    with pytest.raises(StoreError) as caught:
        FeatureReader([folder / "manifest.json"]).read("a", frames)
    assert f"rm -rf '{folder}/features.zarr'/*/a" in str(caught.value)


def test_a_replaced_file_is_verified_again(complete_shard: Path, spec: StoreSpec, features_of, frames) -> None:
    """A shard that is made anew under a reader: it gives an error, not another teacher's features."""
    reader = FeatureReader([complete_shard])
    reader.read("a", frames)
    reader.read("b", frames)
    complete_shard.unlink()
    with FeatureWriter(complete_shard.parent, dataclasses.replace(spec, weights="other")) as writer:
        writer.write("a", frames, features_of("other"))
        writer.finish()
    for scene_id in "ab":
        with pytest.raises(StoreError, match="damaged"):
            reader.read(scene_id, frames)


def test_a_group_that_a_crash_cut_short_is_written_again(complete_shard: Path, spec: StoreSpec, features_of, frames) -> None:
    root = complete_shard.parent / "features.zarr"
    (root / "zarr.json").write_text("")
    (root / "tokens" / "zarr.json").write_text('{"zarr_for')
    rewrite(complete_shard.parent, spec, features_of, frames, "d")
    assert sorted(zarr.open_group(root, mode="r")["tokens"].array_keys()) == ["a", "b", "c", "d"]


def test_a_scene_cannot_have_the_name_of_zarrs_file(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    with FeatureWriter(tmp_path, spec) as writer:
        with pytest.raises(StoreError, match=r"cannot be called zarr\.json"):
            writer.write("zarr.json", frames, features_of("a"))
        writer.write("manifest.json", frames, features_of("a"))
        writer.write("c.0.0.0.0", frames, features_of("a"))
        writer.finish()
    assert FeatureReader([tmp_path / "manifest.json"]).read("c.0.0.0.0", frames).tokens.shape == (3, 3, 4, 5)


def test_a_finished_store_of_another_spec_is_kept_and_an_unfinished_one_given_up_aloud(
    complete_shard: Path, spec: StoreSpec, frames, capsys
) -> None:
    other = dataclasses.replace(spec, weights="other", code="new")
    with pytest.raises(StoreError, match=r"finished store of another spec is here: 3 scenes \(weights, code differ\)"):
        FeatureWriter(complete_shard.parent, other)
    FeatureReader([complete_shard]).read("c", frames)
    complete_shard.unlink()
    FeatureWriter(complete_shard.parent, other).close()
    assert "its 3 scenes are of another spec and are made anew" in capsys.readouterr().err
    FeatureWriter(complete_shard.parent, spec).close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("stage", ["lock", "recover", "write", "finish"])
def test_a_folder_that_may_not_be_written(tmp_path, spec, features_of, frames, monkeypatch, stage: str, code: int) -> None:
    """A fake: the system refuses (tests may run as root, who is refused nothing)."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "somewhere")

    from pipeline.core import locks
    from pipeline.features.journal import Journal

    writer = FeatureWriter(tmp_path, spec) if stage in ("write", "finish") else None
    with monkeypatch.context() as patch:
        patch.setattr(*{"lock": (locks.Path, "mkdir"), "write": (arrays, "ArrayWriter")}.get(stage, (Journal, "start")), refuse)
        act: dict[str, Callable[[FeatureWriter], object]] = {
            "write": lambda writer: writer.write("a", frames, features_of("a")),
            "finish": lambda writer: writer.finish(),
        }
        with pytest.raises(EnvironmentFaultError, match=r"no permission|cannot be used|the disk fails") as caught:
            act[stage](writer) if writer else FeatureWriter(tmp_path, spec)
    assert "scenes are kept" in str(caught.value)
    assert caught.value.where == "somewhere"
    if writer is not None:
        writer.close()
    rewrite(tmp_path, spec, features_of, frames)


def test_a_file_in_the_way_of_the_folder(tmp_path: Path, spec: StoreSpec) -> None:
    (tmp_path / "results").write_bytes(b"")
    with pytest.raises(EnvironmentFaultError, match="cannot be used"):
        FeatureWriter(tmp_path / "results" / "shard0", spec)


def test_a_full_disk_before_the_first_scene_counts_none(complete_shard: Path, spec: StoreSpec, monkeypatch) -> None:
    """A fake: nothing can be written any more. Three scenes are kept, and no message says otherwise."""
    from pipeline.features.journal import Journal

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "start", full)
        with pytest.raises(EnvironmentFaultError, match="no space is left on the disk; finished scenes are kept") as caught:
            FeatureWriter(complete_shard.parent, spec)
    assert " 0 finished" not in str(caught.value)
    with FeatureWriter(complete_shard.parent, spec) as writer:
        assert all(writer.is_done(scene_id) for scene_id in "abc")


def test_a_lock_that_a_child_inherited_is_given_back(tmp_path: Path, spec: StoreSpec) -> None:
    """A process forked while a shard is written (a worker of a data loader) must not keep it locked afterwards."""
    writer = FeatureWriter(tmp_path, spec)
    open_files = {int(link.name): os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    (descriptor,) = (fd for fd, name in open_files.items() if name == str(tmp_path / "writer.lock"))
    inherited = os.dup(descriptor)  # what a fork leaves in the child
    try:
        writer.close()
        FeatureWriter(tmp_path, spec).close()
    finally:
        os.close(inherited)


def test_a_lock_whose_text_does_not_fit_the_disk_is_given_back(tmp_path: Path, spec: StoreSpec, monkeypatch) -> None:
    from pipeline.core import locks

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(locks.json, "dump", full)
        with pytest.raises(EnvironmentFaultError, match="no space"):
            FeatureWriter(tmp_path, spec)
    FeatureWriter(tmp_path, spec).close()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path: Path, spec: StoreSpec, monkeypatch, code: int) -> None:
    """A fake: the system refuses to lock."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(EnvironmentFaultError, match="cannot lock files"):
        FeatureWriter(tmp_path, spec)


def test_a_shard_that_is_gone_is_named(tmp_path: Path, complete_shard: Path, capsys) -> None:
    assert main(["features", "verify", str(complete_shard), str(tmp_path / "gone.json"), "--all"]) == 2
    assert "gone.json does not exist" in capsys.readouterr().err
