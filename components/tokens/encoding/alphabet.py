"""How vocabularies write bytes and spaces. Standard library only."""

from typing import Final

NUM_BYTES: Final = 256
REPLACEMENT: Final = "▁"
"""A space, as SentencePiece writes it."""


def byte_characters() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable ones as they are, the others from U+0100 on (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [number for number in range(NUM_BYTES) if number not in printable]
    return {chr(number): number for number in printable} | {
        chr(NUM_BYTES + place): number for place, number in enumerate(others)
    }


def byte_names() -> dict[str, int]:
    """How other vocabularies, which know characters, write the bytes of one that they do not know (SentencePiece)."""
    return {f"<0x{number:02X}>": number for number in range(NUM_BYTES)}
