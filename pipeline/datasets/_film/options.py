"""What the built-in rooms and 3D-FRONT share: scenes that are filmed with Open3D, and annotations that are generated."""

from __future__ import annotations

from pydantic import Field

from pipeline.core.options import Options
from pipeline.datasets.base import Dataset


class FilmedOptions(Options):
    """Options: how scenes are filmed, and how many annotations they get. Numbers per room are aims: a sparse room may offer
    fewer.
    """

    views: int = Field(6, ge=1, le=64, description="Views per room, chosen from a walk to cover room and objects.")
    width_px: int = Field(128, ge=32, le=1280, description="Width of colour and depth images in pixels.")
    height_px: int = Field(96, ge=32, le=1280, description="Height of colour and depth images in pixels.")
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn at random; different seeds share nothing.")
    described_objects: int = Field(6, ge=1, le=16, description="Objects per room that ScanRefer and Scan2Cap describe.")
    descriptions_per_object: int = Field(3, ge=1, le=5, description="Descriptions of each described object.")
    multi3drefer_per_room: int = Field(6, ge=1, le=20, description="Multi3DRefer descriptions per room.")
    scanqa_per_room: int = Field(6, ge=1, le=20, description="ScanQA questions per room.")
    sqa3d_per_room: int = Field(6, ge=1, le=20, description="SQA3D questions per room.")
    vsibench_per_room: int = Field(0, ge=0, le=40, description="VSI-Bench questions per room; 0 writes no file of them.")
    view_questions: int = Field(4, ge=1, le=12, description="Single-view questions per view (split train only).")

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of all images in pixels."""
        return self.height_px, self.width_px


class FilmedDataset(Dataset):
    """Scenes that ``prepare`` draws with Open3D."""

    renders = True
    options: FilmedOptions

    def annotates(self, kind: str, split: str) -> bool:
        """All kinds; VSI-Bench on request."""
        return kind != "vsibench" or self.options.vsibench_per_room > 0
