"""3DRS as a two-stage, cached pipeline: 3D teachers -> feature stores -> fine-tuned MLLMs -> benchmark tables."""

__version__ = "0.1.0"
