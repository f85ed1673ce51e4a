"""2D pretraining of a backbone from nothing to a saved folder: tokenizer, weights, loop, held-out accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.backbones._transformers.member import TransformersBackbone
from pipeline.core.errors import ConfigError
from pipeline.core.files import UNFINISHED
from pipeline.scenes.index import SceneIndex
from pipeline.training.pretrain2d.loop import Pretrainer
from pipeline.training.pretrain2d.scores import held_out_scores
from pipeline.training.pretrain2d.texts import dataset_texts, sentences, tokenizer_corpus
from pipeline.training.pretrain2d.views import hold_out, read_views


def pretrain(
    member: TransformersBackbone,
    index: SceneIndex,
    folder: Path,
    *,
    digest: str,
    device: str,
    saving: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train ``member`` on the views of ``index``, save it in ``folder`` and return its figures.

    ``digest`` identifies spec and data: a checkpoint of the same digest is resumed, others are dropped. ``saving`` is called
    right before files in ``folder`` are replaced.
    """
    options = member.options.pretrain
    if options is None:
        raise ConfigError(f"backbone {member.name!r} is a released checkpoint, there is nothing to pretrain")
    views, held = hold_out(read_views(index), options.held_out)
    texts = dataset_texts(index)
    folder.mkdir(parents=True, exist_ok=True)
    loaded = _fresh(member, tokenizer_corpus(texts), folder, options.seed, device)
    trainer = Pretrainer(loaded, index, views, sentences(texts), options, folder, digest, device)
    trainer.run()
    figures = {
        "loss": trainer.curve(),
        "held_out": held_out_scores(loaded, held, trainer.images, device=device),
        "views": {"training": len(views), "held_out": len(held)},
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "vocabulary": len(loaded.tokenizer),
    }
    saving()
    loaded.save(folder)
    trainer.checkpoints.remove()
    return figures


def _fresh(member: TransformersBackbone, corpus: list[str], folder: Path, seed: int, device: str) -> LoadedTransformersModel:
    """Build a randomly initialised model with a tokenizer trained on ``corpus``, stored briefly in ``folder``."""
    with tempfile.TemporaryDirectory(prefix=".tokenizer-", suffix=UNFINISHED, dir=folder) as temporary:
        member.train_tokenizer(corpus, Path(temporary))
        loaded = member.build(Path(temporary), seed=seed, device=device)
    assert isinstance(loaded, LoadedTransformersModel)
    return loaded


def summary_lines(figures: dict[str, Any]) -> list[str]:
    """Return held-out accuracy per kind as readable lines."""
    lines = [f"{'kind':<14}{'accuracy':>10}{'constant':>10}{'n':>7}"]
    for kind, row in figures["held_out"].items():
        lines.append(f"{kind:<14}{row['accuracy']:>10.3f}{row['best_constant']:>10.3f}{row['n']:>7}")
    return lines
