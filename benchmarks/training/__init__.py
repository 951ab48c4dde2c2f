"""Pretraining against its peers, on the same tokens: how fast a step is, and what is learned in equal time or FLOPs."""
