"""The training program: from a skill's episodes to a checkpoint. Start with `train.py`, which reads top to bottom."""
