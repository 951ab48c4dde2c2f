"""Which files of a package a Python file imports, and so in which order they are read. Standard library only.

Covers: the import statements at the head of a file, absolute and relative, whatever folder the modules lie in (`src/`).
Not covered: other languages, whose files are ordered by folder and name alone; names that are made at run time.
"""

import re
from collections.abc import Sequence
from typing import Final

HEAD_CHARACTERS: Final = 16_384
"""Imports stand at the head of a file: no more of it is looked at."""
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+\(?([\w, \t]*)|import[ \t]+([\w., \t]+))", re.MULTILINE
)
_SUFFIX = re.compile(r"\.(py|pyi|pyx)$")
_PACKAGE = "__init__"


def imported_modules(text: str) -> list[str]:
    """What a file imports, in its order, each once: `from a.b import c` is a.b.c, `from . import c` is .c."""
    modules: dict[str, None] = {}
    for module, names, plain in _IMPORT.findall(text, 0, HEAD_CHARACTERS):
        if plain:
            modules |= dict.fromkeys(_first_words(plain))
        elif module:
            stem = module if module.endswith(".") else f"{module}."
            modules |= dict.fromkeys([f"{stem}{name}" for name in _first_words(names)] or [module])
    return list(modules)


def links(paths: Sequence[str], imports: Sequence[Sequence[str]]) -> list[list[int]]:
    """The files of a package (by number) that each of its files imports, in the order of its statements, each once.

    A module is looked for by its whole name, then by the end of it (at least two parts: `logging` is not every file of
    that name), then as a name within its parent.
    """
    parts = [_parts(path) for path in paths]
    known = {".".join(each): number for number, each in reversed([*enumerate(parts)])}
    for number, each in enumerate(parts):
        for first in range(1, len(each) - 1):
            known.setdefault(".".join(each[first:]), number)
    found = []
    for number, modules in enumerate(imports):
        folder = paths[number].split("/")[:-1]
        targets = [_target(module, folder, known) for module in modules]
        found.append(list(dict.fromkeys(each for each in targets if each is not None and each != number)))
    return found


def reading_order(paths: Sequence[str], imports: Sequence[Sequence[str]]) -> list[int]:
    """The files of a package, each behind those that it imports; otherwise, and in cycles, by folder and name."""
    linked = links(paths, imports)
    begun: set[int] = set()
    order: dict[int, None] = {}
    for first in sorted(range(len(paths)), key=lambda file: paths[file].rpartition("/")[::2]):
        waiting = [first]
        while waiting:
            file = waiting[-1]
            if file in begun:
                order.setdefault(waiting.pop())
            else:
                begun.add(file)
                waiting += [each for each in reversed(linked[file]) if each not in begun]
    return list(order)


def nearest_last(path: str, modules: Sequence[str], paths: Sequence[str]) -> list[int]:
    """Other files of a package, the one that tells most about `path` last: what it imports, then by shared folders.

    modules     what the file imports
    """
    places = {file: place for place, file in enumerate(links([*paths, path], [*[()] * len(paths), modules])[-1])}
    folder = path.split("/")[:-1]
    return sorted(
        range(len(paths)), key=lambda file: (places.get(file, -1), _shared(folder, paths[file].split("/")), paths[file])
    )


def _first_words(names: str) -> list[str]:
    """The names of `a as b, c`."""
    return [words[0] for each in names.split(",") if (words := each.split())]


def _parts(path: str) -> list[str]:
    """The module of a path as its parts; of a file in another language nothing that can be imported."""
    if not _SUFFIX.search(path):
        return [path]
    parts = _SUFFIX.sub("", path).split("/")
    return parts[:-1] if parts[-1] == _PACKAGE and len(parts) > 1 else parts


def _target(module: str, folder: Sequence[str], known: dict[str, int]) -> int | None:
    name = module.lstrip(".")
    if level := len(module) - len(name):
        base = folder[: max(0, len(folder) - level + 1)]
        name = ".".join([*base, *name.split(".")] if name else base)
    return known.get(name, known.get(name.rpartition(".")[0]))


def _shared(folder: Sequence[str], other: Sequence[str]) -> int:
    return next((depth for depth, (a, b) in enumerate(zip(folder, other, strict=False)) if a != b), len(folder))
