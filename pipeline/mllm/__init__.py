"""The multimodal LLMs of `transformers`, cut into the parts of pipeline/backbones/base.py, and their 2D pretraining."""
