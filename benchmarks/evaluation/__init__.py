"""Evaluation against peers."""
