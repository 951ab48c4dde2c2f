"""The real files that benches read: Python sources of the running environment. Without imports from components, since
peers, which import their comparison, have an environment of their own."""

import random
import sysconfig
from collections.abc import Sequence
from pathlib import Path


def sample(documents: int, *, packages: Sequence[str] = (), seed: int = 0, max_bytes: int = 200_000) -> list[str]:
    """Distinct Python files of these packages of the running environment, or of packages drawn by a seed."""
    root = Path(sysconfig.get_path("purelib"))
    names = list(packages) or sorted(each.name for each in root.iterdir() if each.is_dir())
    if not packages:
        random.Random(seed).shuffle(names)
    texts: dict[str, None] = {}
    for name in names:
        for path in sorted((root / name).rglob("*.py")):
            content = path.read_bytes()
            if 64 <= len(content) <= max_bytes:
                try:
                    texts[content.decode()] = None
                except UnicodeDecodeError:
                    continue
            if len(texts) == documents:
                return list(texts)
    return list(texts)
