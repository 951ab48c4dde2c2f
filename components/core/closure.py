"""Which source files a module runs: itself, every module of this repository that it imports, directly or not, and the
files and folders beside a module that it names by `Path(__file__).with_name(...)`, or loads later, when it is needed,
by `importlib.import_module("...")`.

The key of a cached result must hold all of them: dvc.yaml lists them, a test compares, manifests record a digest.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("components", "flows")


@cache
def used_files(path: Path) -> tuple[Path, ...]:
    """Files of this repository that one file imports or names, anywhere in its text, sorted."""
    if path.suffix != ".py":
        return ()
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    names: set[str] = set()
    beside: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Path(__file__).with_name":
            beside.add(path.with_name(ast.literal_eval(node.args[0])))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            names.update(str(each.value) for each in node.args if isinstance(each, ast.Constant))
    modules = {found for name in names if (found := _file_of(name))}
    return tuple(sorted(modules | {file for place in beside for file in _files_of(place)}))


def _files_of(place: Path) -> list[Path]:
    """A file, or all files below a folder but compiled ones."""
    if place.is_dir():
        return [file for file in place.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return [place]


def _file_of(name: str) -> Path | None:
    """The file of a dotted module name of this repository; None for other names and for empty packages."""
    if name.split(".")[0] not in PACKAGES:
        return None
    stem = ROOT.joinpath(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file() and path.stat().st_size > 0:
            return path
    return None


def closure(path: Path) -> tuple[Path, ...]:
    """All source files that running `path` may execute, relative to the repository's root, sorted."""
    seen: set[Path] = set()
    todo = [path.resolve(), *(found for name in PACKAGES[:1] if (found := _file_of(name)))]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo.extend(used_files(current))
    return tuple(sorted(file.relative_to(ROOT) for file in seen))


def code_digest(path: Path) -> str:
    """sha256 over names and contents of the closure of `path`, hex."""
    total = hashlib.sha256()
    for file in closure(path):
        total.update(f"{file.as_posix()}\0".encode())
        total.update(hashlib.sha256((ROOT / file).read_bytes()).digest())
    return total.hexdigest()


def lock_digest() -> str:
    """sha256 of requirements.lock, hex."""
    return hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()
