"""Released checkpoints of the families: name, licence, size. Imports nothing heavy: it answers before anything is downloaded.

Sources: licences as the model cards on Hugging Face name them (read the card before you rely on one). Parameters: counted on
the library's classes with the published configurations; for Qwen2.5-VL the count times two bytes equals ``total_size`` in
the checkpoint's index file (7,509,245,952 and 16,584,333,312). Bytes: two per stored parameter (bf16).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.backbones.base import ModelSize

TINY_LAYERS = 3
"""Decoder layers of a model built in the workflow."""


@dataclass(frozen=True, slots=True)
class Release:
    """A released checkpoint: ``name`` on Hugging Face; ``licence`` of the weights; ``bytes`` of all its safetensors files."""

    name: str
    licence: str
    commercial: bool
    bytes: int
    size: ModelSize

    @property
    def folder(self) -> str:
        """Return the usual name of a download folder."""
        return self.name.rsplit("/", 1)[-1]


_QWEN_TOKENS = {"tokens": 196, "patches": 784}
_SIGLIP_TOKENS = {"tokens": 196, "patches": 729}
_INTERN_TOKENS = {"tokens": 256, "patches": 1024}
_INTERN_LICENCE = "MIT, with parts of Qwen2.5 (Apache-2.0)"

QWEN2_5_VL = (
    Release(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "Qwen Research License (non-commercial)",
        False,
        7_509_245_952,
        ModelSize(language=3_085_938_688, vision=668_684_288, layers=36, width=2048, **_QWEN_TOKENS),
    ),
    Release(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "Apache-2.0",
        True,
        16_584_333_312,
        ModelSize(language=7_615_616_512, vision=676_550_144, layers=28, width=3584, **_QWEN_TOKENS),
    ),
)
LLAVA_ONEVISION = (
    Release(
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        "Apache-2.0",
        True,
        1_787_351_104,
        ModelSize(language=495_927_808, vision=397_747_744, layers=24, width=896, **_SIGLIP_TOKENS),
    ),
    Release(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "Apache-2.0",
        True,
        16_061_615_168,
        ModelSize(language=7_633_059_840, vision=397_747_744, layers=28, width=3584, **_SIGLIP_TOKENS),
    ),
)
INTERNVL = (
    Release(
        "OpenGVLab/InternVL3-1B-hf",
        _INTERN_LICENCE,
        True,
        1_876_386_048,
        ModelSize(language=498_280_832, vision=304_012_288, layers=24, width=896, **_INTERN_TOKENS),
    ),
    Release(
        "OpenGVLab/InternVL3-2B-hf",
        _INTERN_LICENCE,
        True,
        4_177_914_880,
        ModelSize(language=1_551_973_888, vision=304_012_288, layers=28, width=1536, **_INTERN_TOKENS),
    ),
    Release(
        "OpenGVLab/InternVL3-8B-hf",
        _INTERN_LICENCE,
        True,
        15_888_747_520,
        ModelSize(language=7_640_361_472, vision=304_012_288, layers=28, width=3584, **_INTERN_TOKENS),
    ),
)


def release_of(folder: str, releases: tuple[Release, ...]) -> Release | None:
    """Return the release that a folder is named after (case does not matter), None for any other name."""
    return next((release for release in releases if release.folder.lower() == folder.lower()), None)
