"""Training a network: the loop that fine-tuning and both pretrainings share, its checkpoints, learning rates and prefetching.

Knows no model and no data: a subclass of ``loop.Loop`` says what a step sees and what its loss is.
"""
