"""Sizes, tokens, memory, cost and odds of a run that has not begun."""
