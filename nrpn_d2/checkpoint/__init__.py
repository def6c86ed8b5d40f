"""Weights in and out: the checkpointer, the nRPN's start, ImageNet weights and their pixels."""
