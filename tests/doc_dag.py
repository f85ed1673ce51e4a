"""The picture of docs/architecture.md: which rule needs which, as Mermaid text (`python tests/doc_dag.py` prints it)."""

from __future__ import annotations

import re
import subprocess


def dag_text(dot: str) -> str:
    """Mermaid text of what `snakemake --rulegraph dot` printed; rules and arrows in alphabetical order."""
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', dot, re.MULTILINE))
    arrows = sorted((names[a], names[b]) for a, b in re.findall(r"^\s*(\d+) -> (\d+)", dot, re.MULTILINE))
    return "\n".join(["flowchart TB", *(f"    {a} --> {b}" for a, b in arrows)])


if __name__ == "__main__":
    print(dag_text(subprocess.run(["snakemake", "--rulegraph", "dot"], check=True, capture_output=True, text=True).stdout))
