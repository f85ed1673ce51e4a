"""Is everything there that the configured study needs, before any hour is spent? (`python -m pipeline doctor`)"""

SUSTAINED_TFLOPS = 125.0
"""40 % of the 312 TFLOP/s (bf16, dense) in NVIDIA's data sheet of the A100."""
