"""The loop that all trainings share: exact resumption, checkpoints that cannot be trusted, clear failures, prefetching."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.errors import EnvironmentFaultError, TrainingError
from pipeline.optim.checkpoint import Checkpoints
from pipeline.optim.loop import METRICS, Loop, StepLosses, final_means
from pipeline.optim.optimizer import decay_groups, schedule_factor, set_rates
from pipeline.optim.prefetch import prefetch


class Stopped(Exception):
    """Stands for a killed process."""


class Line(Loop[torch.Tensor]):
    """Fits a small network to sums, with dropout from torch's generator."""

    label, not_finite_fix, memory_fix = "line", "lower the rate", "fewer points"

    def __init__(self, folder: Path, identity: str = "d", stop: int | None = None):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.stop = stop
        groups = decay_groups("all", module.parameters(), 1e-2, 0.1)
        assert [(g["weight_decay"], {p.ndim for p in g["params"]}) for g in groups] == [(0.1, {2}), (0.0, {1})]
        checkpoints = Checkpoints(folder / "checkpoints", identity)
        super().__init__(module, torch.optim.AdamW(groups), checkpoints, steps=7, save_every=3)

    def batch(self, step: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(step).normal(size=(16, 4))).float()

    def backward(self, step: int, batch: torch.Tensor) -> StepLosses:
        if step == self.stop:
            raise Stopped
        loss = (self.module(batch)[:, 0] - batch.sum(1)).square().mean()
        loss.backward()
        return {"loss": loss.item()} | ({"late": float(step)} if step > 2 else {})

    def set_rates(self, step: int) -> None:
        set_rates(self.optimizer, schedule_factor(step, self.steps, 2))

    def weights(self) -> list[list[float]]:
        return [p.flatten().tolist() for p in self.module.parameters()]

    def lines(self) -> list[dict]:
        found = [json.loads(line) for line in self.metrics.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "step_s"} for line in found]


def stopped(folder: Path, step: int = 5) -> Path:
    """Leave a training that was killed in ``step``; the folder of its checkpoints."""
    with pytest.raises(Stopped):
        Line(folder, stop=step).run()
    return folder / "checkpoints"


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_stopped_training_ends_as_if_it_had_never_stopped(tmp_path: Path, stop: int) -> None:
    whole = Line(tmp_path / "whole")
    losses = whole.run()
    with (stopped(tmp_path / "cut", stop) / METRICS).open("a") as log:
        log.write('{"step": 9')  # the line that was being written
    resumed = Line(tmp_path / "cut")
    for parameter in resumed.module.parameters() if stop > 2 else ():  # whatever was in memory must not matter
        parameter.data.normal_()
    assert resumed.run() == losses
    assert resumed.weights() == whole.weights()
    assert resumed.lines() == whole.lines()
    assert [line["step"] for line in whole.lines()] == list(range(1, 8))
    again = Line(tmp_path / "whole", stop=0)
    assert again.run() == losses, "a finished training is not repeated when what follows it failed"
    assert again.weights() == whole.weights()
    assert final_means(losses) == {"late": 6.0, "loss": round(losses[-1]["loss"], 4)}


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "losses.json", "checkpoint.json"])
def test_one_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """torch.load compares no checksums, and another step would train another part of the schedule."""
    path = stopped(tmp_path) / "step00000003" / name
    whole, checkpoints, random = path.read_bytes(), Line(tmp_path).checkpoints, np.random.default_rng(3)
    for byte, bit in zip(random.integers(len(whole), size=20), random.integers(8, size=20), strict=True):
        data = bytearray(whole)
        data[byte] ^= 1 << int(bit)
        path.write_bytes(data)
        assert checkpoints.latest() is None
    assert "damaged and not used" in capsys.readouterr().err
    path.write_bytes(whole)
    assert checkpoints.latest() is not None
    path.write_bytes(whole[: len(whole) // 2])
    assert Line(tmp_path).resume() == 0


def test_checkpoints_of_another_spec_are_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped(tmp_path)
    fresh = Line(tmp_path, "new")
    before = fresh.weights()
    assert not capsys.readouterr().err.count("warning")
    assert fresh.resume() == 0
    assert "another spec, other inputs or another torch: 3 finished steps are not used" in capsys.readouterr().err
    assert fresh.weights() == before
    assert Line(tmp_path).checkpoints.latest() is None
    assert not fresh.lines()


@pytest.mark.parametrize(("what", "value"), [("loss", float("nan")), ("gradient", float("inf"))])
def test_what_is_not_finite_changes_no_weight(tmp_path: Path, what: str, value: float) -> None:
    found = Line(tmp_path)
    before = found.weights()
    if what == "gradient":
        next(found.module.parameters()).register_hook(lambda gradient: gradient * value)
    else:
        found.batch = lambda _: torch.full((16, 4), value)  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=f"line: the {what} is not finite .* in step 1 of 7") as caught:
        found.run()
    assert caught.value.fix == "lower the rate"
    assert found.weights() == before


def test_memory_that_runs_out_is_one_message(tmp_path: Path) -> None:
    found = Line(tmp_path)

    def too_large(_: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    found.batch = too_large  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFaultError, match="memory ran out while a step was trained") as caught:
        found.run()
    assert "fewer points" in str(caught.value.fix)


def test_schedule_warms_up_and_decays_to_zero() -> None:
    factors = [schedule_factor(step, 100, 3) for step in range(100)]
    assert factors[:4] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert factors[3:] == sorted(factors[3:], reverse=True)
    assert 0 < factors[-1] < 0.001
    assert schedule_factor(0, 1, 0) == 1.0


def test_batches_come_in_order_and_at_most_two_ahead() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(step: int) -> str:
        if step == 7:
            raise KeyError(step)
        made.append(step)
        if step == 5:
            third.set()
        return f"batch {step}"

    taken = prefetch(make, range(3, 9))
    assert next(taken) == (3, "batch 3")
    assert third.wait(5)
    assert made == [3, 4, 5]
    assert [next(taken) for _ in range(3)] == [(step, f"batch {step}") for step in (4, 5, 6)]
    with pytest.raises(KeyError, match="7"):
        next(taken)
    assert list(prefetch(make, range(2, 2))) == []
