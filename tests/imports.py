"""What modules import, as Python's compiler has it: an oracle for the closure, which reads the source's syntax tree."""

from collections.abc import Iterator
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType

_FINDER = ModuleFinder()


def modules(root: Path) -> set[str]:
    """Every module below components/ that holds something, by its path."""
    files = (root / "components").rglob("*.py")
    return {path.relative_to(root).as_posix() for path in files if path.stat().st_size > 1}


def imported(root: Path, module: Path) -> set[str]:
    """A module and all of components/ that it may import, directly or not, now or later, by their paths."""
    seen: set[Path] = set()
    todo = [module]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += _direct(root, path)
    found = {path.relative_to(root).as_posix() for path in seen}
    return found & modules(root)


@cache
def _direct(root: Path, path: Path) -> list[Path]:
    """Files behind the names that the code of a file imports, and those of the packages that Python passes through."""
    names = {".".join(path.relative_to(root).with_suffix("").parts)}
    for code in _codes(compile(path.read_bytes(), str(path), "exec")):
        for kind, what in _FINDER.scan_opcodes(code):
            if kind == "absolute_import":
                members, name = what
                names |= {name, *(f"{name}.{each}" for each in members or ())}
        if "import_module" in code.co_names:
            names |= {each for each in code.co_consts if isinstance(each, str)}
    packages = {".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 1)}
    places = [root.joinpath(*name.split(".")) for name in names | packages if name.startswith("components")]
    files = [place.with_suffix(".py") for place in places] + [place / "__init__.py" for place in places]
    return [each for each in files if each.is_file()]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)
