"""Try a foreign tokenizer in a process of its own, whose time and memory are bounded: it ends, or the file is refused.

    python -m components.tokens.foreign.pipeline_probe PATH SECONDS
    one line of JSON: {"refused": ...} or {"notes": [...], "largest_id": N}

Reads JSON, judges its parts, loads it with tokenizers, and encodes texts of every kind of character: each must come
back as it was, from tokens that are not more than its bytes.
"""

import json
import os
import resource
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from components.core.errors import DataError
from components.tokens.encoding.alphabet import REPLACEMENT
from components.tokens.foreign.pipeline import cleaned, lacking_bytes, literals, patterns_of, read

# Gemma's tokenizer takes 3 s and 1 GB. Seconds are of the processor's, so another one's load changes nothing.
CPU_SECONDS = 60
MEMORY_BYTES = 6_000_000_000
# What patterns are slow on: long runs of one kind of character. Time that grows with their square passes, with their
# cube it does not.
RUN_CHARACTERS = 4096
RUNS = ("a", "A", "aB", "1", " ", "\n", "\t", "\r\n", " \n", "_", "-", "'", "(", "é", "語", "a1", "a ", "𐐀", "́", "😀")
SURROUNDED = ("a", "\n", "1", "é")
PLANES = (
    range(0x20, 0x3000),
    range(0x4E00, 0x4F00),
    range(0xAC00, 0xAD00),
    range(0xF900, 0x10000),
    range(0x1F300, 0x1F700),
)


def check(path: Path, cpu_seconds: int = CPU_SECONDS) -> tuple[list[str], int]:
    """What is switched off in a foreign tokenizer, a note each, and the largest of its ids.

    Raises DataError when it is refused, or takes more time or memory than any in use.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(path.resolve()), str(cpu_seconds)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        said = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
        raise DataError(
            f"{path}: loading it and encoding a few texts needs more than {cpu_seconds} s of a processor or "
            f"{MEMORY_BYTES // 10**9} GB, or ends the process ({last}); continue one with an ordinary tokenizer"
        ) from error
    if "refused" in said:
        raise DataError(said["refused"])
    return list(said["notes"]), int(said["largest_id"])


def try_out(path: Path) -> tuple[list[str], int]:
    """What `check` says, in this process."""
    theirs = read(path)
    content, notes = cleaned(theirs, path)
    try:
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises bare Exception for every cause
        raise DataError(
            f"{path}: cannot be read as a tokenizer: {error}; a checkpoint is continued with its own tokenizer, "
            "save it beside the weights (AutoTokenizer.save_pretrained)"
        ) from error
    tokenizer.encode_special_tokens = True
    for text in texts(patterns_of(content)):
        _require_kept(tokenizer, text, path)
    added = len(lacking_bytes(theirs["model"]))  # the largest ids, which their model has no rows of
    return notes, max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) - added


def texts(patterns: Sequence[str] = ()) -> list[str]:
    """Every kind of character, in runs, side by side, and in ordinary lines; and runs before what patterns look for,
    which a search for it would else pass over."""
    runs = [run * (RUN_CHARACTERS // len(run)) for run in RUNS]
    around = [f"{one}{run * 40}{other}" for run in RUNS for one in SURROUNDED for other in SURROUNDED]
    planes = ["".join(each for each in map(chr, plane) if unicodedata.category(each) != "Cn") for plane in PLANES]
    lines = ["def f(a, b=1):\n    return  a[0]   # x\n\n\tif not a :\r\n", "x", " x", "x ", "  ", "\n", "\x00\x01\x7f"]
    sought = "\0".join(needle for pattern in patterns for needle in literals(pattern))
    return [*lines, *around, *planes, *(f"{run}{end}" for run in runs for end in ("", f"!\0{sought}"))]


def _require_kept(tokenizer: Tokenizer, text: str, path: Path) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    shown = text[:12] + ("..." if len(text) > 12 else "")
    if len(ids) > 2 * len(text.encode()) + 2:
        raise DataError(
            f"{path}: {len(text.encode())} bytes of text become {len(ids)} tokens ({shown!r}); needed at most one for "
            "each byte: continue a checkpoint with an ordinary tokenizer"
        )
    back = tokenizer.decode(ids, skip_special_tokens=False)
    one, other = _folded(back), _folded(text)
    # SentencePiece begins a text with a space of its own, and takes one away again.
    if one.lstrip(" ") != other.lstrip(" ") or abs(len(one) - len(other)) > 1:
        raise DataError(
            f"{path}: a text is not what its tokens say: {shown!r} comes back as {back[:12]!r} of {len(back)} "
            f"characters, needed {len(text)}; continue a checkpoint whose tokenizer keeps every byte of a text"
        )


def _folded(text: str) -> str:
    """A text up to what the allowed normalizers may change: canonical form, how spaces are written."""
    return unicodedata.normalize("NFC", text.replace(REPLACEMENT, " "))


def bounded(cpu_seconds: int) -> None:
    """Bound this process: its processor time and its memory."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    bounded(int(sys.argv[2]))
    try:
        notes, largest_id = try_out(Path(sys.argv[1]))
        said = {"notes": notes, "largest_id": largest_id}
    except DataError as error:
        said = {"refused": " ".join(str(error).split())}
    os.write(1, json.dumps(said).encode())
