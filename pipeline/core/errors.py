"""One class per cause. A message says what is wrong, where, what is allowed and which command fixes it.

Every error below is a user's mistake or a fault of the data, never a bug: the command line prints the message without a
traceback and exits with code 2. Anything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all expected errors (exit code 2, no traceback)."""

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, allowed: str | None = None, fix: str | None = None):
        parts = [what.rstrip()]
        if where:
            parts.append(f"  where:   {where}")
        if allowed:
            parts.append(f"  allowed: {allowed}")
        if fix:
            parts.append(f"  fix:     {fix}")
        super().__init__("\n".join(parts))
        self.what, self.where, self.allowed, self.fix = what, where, allowed, fix


class ConfigError(PipelineError):
    """A key or a value of config.yaml is wrong."""


class UnknownNameError(ConfigError):
    """A name is not in the registry or not defined in config.yaml."""


class DataError(PipelineError):
    """A data file is missing, truncated, malformed or contradicts another one."""


class FrameError(DataError):
    """A frame (image, depth, pose or intrinsics) cannot be used."""


class AnnotationError(DataError):
    """An annotation file is malformed or names things that do not exist."""


class StoreError(PipelineError):
    """A feature store does not fit what is asked of it (other spec, other frames, bad checksum)."""


class CheckpointError(PipelineError):
    """Weights are missing, partial or of another model."""


class TrainingError(PipelineError):
    """A training cannot go on: the loss or the gradients are not finite."""


class PredictionError(PipelineError):
    """Predictions are missing, duplicated, or not for these samples."""


class BusyError(PipelineError):
    """Another process is still working on the same output."""


class EnvironmentFaultError(PipelineError):
    """A system library, runtime or device that is needed is not there."""
