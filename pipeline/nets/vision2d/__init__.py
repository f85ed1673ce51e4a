"""Image networks of transformers as sources of token features: DINOv2, DINOv3, SigLIP 2, CLIP and MAE."""
