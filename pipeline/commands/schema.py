"""Print the JSON schema of config.yaml: editors complete and check keys with it."""

from __future__ import annotations

import argparse
import json

from pipeline.study.config import json_schema

HELP = "print the JSON schema of config.yaml (kept as workflow/schemas/config.schema.json)"


def configure(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(_args: argparse.Namespace) -> None:
    print(json.dumps(json_schema(), indent=1, sort_keys=True))
