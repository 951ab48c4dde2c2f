"""Vocabulary and tokens."""
