"""Lines, dots and words of a plot as SVG, in pixels from the upper left."""

from collections.abc import Sequence
from html import escape

GREY = "#d0d7de"
BLACK = "#24292f"


def line(x1: float, y1: float, x2: float, y2: float, colour: str = GREY, width: float = 1) -> str:
    """A straight line."""
    return f'<path stroke="{colour}" stroke-width="{width}" d="M{x1:.1f},{y1:.1f} {x2:.1f},{y2:.1f}"/>'


def dot(x: float, y: float, colour: str) -> str:
    """A disc of 4 pixels' radius."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'


def text(x: float, y: float, words: str, anchor: str = "start", fill: str = BLACK) -> str:
    """Words that start, end or have their middle at x."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'


def page(body: Sequence[str], width: int, height: int) -> str:
    """A whole file, white behind."""
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {style}>'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *body, "</svg>\n"])
