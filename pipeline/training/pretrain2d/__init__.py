"""2D pretraining: a tiny multimodal LLM learns what single views show, and plain language, before it ever sees a 3D scene.

It stands for the pretraining on images that a released MLLM has had: colours, categories, existence, counts and captions of one
view, nothing about space across views.
"""
