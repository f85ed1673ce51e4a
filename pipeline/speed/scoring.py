"""``python -m pipeline bench scoring``: scoring by this project against the plain way, one sample after the other.

Made-up queries, answers and captions of realistic form (141 scenes). Our side also makes 1,000 bootstrap resamples of
scenes, subsets and per-sample values, the plain side only the figures over the whole set; both must agree to 1e-6. Takes
about two minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core import registry
from pipeline.core.provenance import versions, write_atomic
from pipeline.metrics.java import coco_file, meteor_session
from pipeline.metrics.paraphrases import filtered_table, vocabulary
from pipeline.speed import _scoring_data as data
from pipeline.speed import _scoring_plain as plain
from pipeline.speed._measure import Row, machine
from pipeline.speed.features import lines_of

if TYPE_CHECKING:
    from pipeline.benchmarks.base import MetricResult
    from pipeline.scenes.index import SceneIndex
    from pipeline.speed._scoring_data import Job
    from pipeline.speed._scoring_plain import Figures

HELP = "scoring of made-up answers: this project against pycocoevalcap and loops over samples"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--grounding", type=int, default=10_000, metavar="N", help="queries, half with one target (default 10000)")
    add("--answers", type=int, default=4675, metavar="N", help="default 4675, as ScanQA's validation questions")
    add("--captions", type=int, default=2000, metavar="N", help="default 2000, about Scan2Cap's validation objects")
    add("--no-meteor", action="store_true", help="leave METEOR out (no Java runtime)")
    add("--out", type=Path, metavar="JSON", help="write all figures here, too")


def run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-scoring-") as folder:
        rows = measure(args, Path(folder))
    where = machine()
    print(f"Measured on {where['cpu']}, {where['cores']} cores, {where['system']}, made-up data\n")
    print("\n".join(lines_of(rows)))
    if args.out:
        found = {"machine": where, "versions": versions(), "rows": [row.to_json() for row in rows]}
        write_atomic(args.out, json.dumps(found, indent=1, sort_keys=True) + "\n")


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Run all comparisons; METEOR of both text benchmarks runs in one Java process, as in the command `score`."""
    rng = np.random.default_rng(0)
    index = data.made_up_index(folder, rng)
    single = data.single_queries(index, args.grounding // 2, rng)
    multi = data.multi_queries(index, args.grounding - args.grounding // 2, rng)
    asked, told = data.questions(index, args.answers, rng), data.captions(index, args.captions, rng)
    meteor = not args.no_meteor
    rows = [
        _compare("scanrefer", single, index, lambda: plain.single(single.samples, single.answers, index)),
        _compare("multi3drefer", multi, index, lambda: plain.multiple(multi.samples, multi.answers, index)),
    ]
    texts = [r for job in (asked, told) for s in job.samples for r in s.references]
    if meteor:
        _fill_cache(texts)
    with meteor_session(texts):
        options = {"meteor": meteor}
        for name, job, other in (("scanqa", asked, plain.answers_score), ("scan2cap", told, plain.captions_score)):
            rows.append(_compare(name, job, index, _call(other, job, meteor), options))
    return rows


def _call(other: Callable[..., Figures], job: Job, meteor: bool) -> Callable[[], Figures]:
    return lambda: other(job.samples, job.answers, meteor=meteor)


def _fill_cache(texts: list[str]) -> None:
    """Fill the filtered METEOR table before timing: a study filters it once, not at every scoring."""
    filtered_table(coco_file("meteor", "meteor-1.5.jar").parent / "data" / "paraphrase-en.gz", vocabulary(texts))


def _compare(
    kind: str, job: Job, index: SceneIndex, other: Callable[[], Figures], options: Mapping[str, Any] | None = None
) -> Row:
    """Time both sides once and check that they agree."""
    _say(f"{len(job.samples)} samples of {kind}")
    benchmark = registry.create("benchmarks", {"name": kind, "kind": kind, "options": dict(options or {})})
    start = time.perf_counter()
    ours = benchmark.score(job.samples, job.answers, index)
    middle = time.perf_counter()
    theirs = other()
    end = time.perf_counter()
    _check(ours, theirs)
    note = f"{len(job.samples):,} samples" + (", with METEOR" if (options or {}).get("meteor") else "")
    return Row(f"score {kind}", middle - start, end - middle, "plain, one by one", "s", "faster", None, note)


def _check(ours: Sequence[MetricResult], theirs: Figures) -> None:
    """Raise RuntimeError unless every plain figure equals ours: else the two sides would do different work."""
    found = {(r.metric, r.reference): r.value for r in ours if r.subset == "all"}
    for key, value in theirs.items():
        if abs(found[key] - value) > 1e-6:
            raise RuntimeError(f"{key}: ours {found[key]!r}, plain {value!r}")


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
