"""The method: one training step from the backbone's features to losses, and nothing else."""
