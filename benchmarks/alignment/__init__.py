"""Alignment against peers."""
