"""From a config to a run: the trainer, its loop and hooks, and several processes."""
