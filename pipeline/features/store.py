"""Interface of the feature store to the rest of the project.

A shard is a folder ``results/features/{dataset}/{teacher}/shardN/`` with

    features.zarr/tokens/{scene}       (V,G,K,D) uint16 (bfloat16 bits), float32 or int8; chunk = one view, one file
    features.zarr/tokens.{layer}/...    the same per layer for teachers that store several (``StoreSpec.layers``)
    features.zarr/scales/{scene}       (V,D) float32, only of int8: number = int8 * scale of its channel and view
    features.zarr/confidence, depth    (V,G,K) float32, and pose (V,4,4) float32, only where the teacher predicts them
    journal.jsonl                      finished scenes; what a killed job resumes from
    manifest.json                      written last and atomically: the shard is complete
    writer.lock                        one writer at a time

Tokens are packed without loss (Blosc) or, with ``compression: none``, stored as they are. A scene's
bytes are on disk (fsync) before its line is in the journal, and every view is verified against its CRC-32C on first read: a
crash costs the scene it hit, nothing else. Shards are independent of each other; any number of readers may read a shard.
writer.py, reader.py, arrays.py (files and their description), mapped.py (checked views of mapped files), parallel.py (a few
threads), dtypes.py (formats, their errors, packing), resample.py (a student's grid).
"""

from __future__ import annotations

from pipeline.features.reader import FeatureReader, StoredFeatures
from pipeline.features.spec import StoreSpec
from pipeline.features.writer import FeatureWriter

__all__ = ["FeatureReader", "FeatureWriter", "StoreSpec", "StoredFeatures"]
