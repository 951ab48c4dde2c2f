"""Which source files a module runs: itself, every module of this repository that it imports, directly or not, and the
files and folders beside a module that it names by `Path(__file__).with_name(...)`, or loads later, when it is needed,
by `importlib.import_module("...")`.

The key of a cached result must hold all of them: components.core.graph.reads writes them down for DVC, manifests record
them.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("components", "dashboards", "flows")


def used_files(path: Path, root: Path = ROOT) -> tuple[Path, ...]:
    """Files of this repository that one file imports or names, anywhere in its text, sorted."""
    state = path.stat()
    return _used_files(path, root, state.st_mtime_ns, state.st_size)


@cache
def _used_files(path: Path, root: Path, _mtime_ns: int, _size: int) -> tuple[Path, ...]:
    """For as long as the file does not change."""
    if path.suffix != ".py":
        return ()
    names: set[str] = set()
    beside: set[Path] = set()
    content = path.read_bytes()
    tree = ast.parse(content, filename=str(path))
    calls = b"with_name(" in content or b"import_module(" in content  # else there is no need to look for any
    for node in ast.walk(tree) if calls else _statements(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "with_name" and ast.unparse(node.func.value) == "Path(__file__)":
                beside.add(path.with_name(ast.literal_eval(node.args[0])))
            elif node.func.attr == "import_module":
                names.update(str(each.value) for each in node.args if isinstance(each, ast.Constant))
    modules = {file for name in names if (file := _file_of(name, root))}
    return tuple(sorted(modules | {file for place in beside for file in _files_of(place)}))


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement, however deep, without its expressions, which are most of a tree."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            todo.extend(getattr(node, block, ()))


def _files_of(place: Path) -> list[Path]:
    """A file, or all files below a folder but compiled ones."""
    if place.is_dir():
        return [file for file in place.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return [place]


def _file_of(name: str, root: Path) -> Path | None:
    """The file of a dotted module name of this repository; None for other names and for empty packages."""
    if name.split(".")[0] not in PACKAGES:
        return None
    stem = root.joinpath(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file() and path.stat().st_size > 0:
            return path
    return None


def _packages_of(path: Path, root: Path) -> list[Path]:
    """What Python runs before a module: the packages that it lies in, but for empty ones."""
    folders = path.parent.relative_to(root).parts
    names = [".".join(folders[: depth + 1]) for depth in range(len(folders))]
    return [file for name in names if (file := _file_of(name, root))]


def closure(path: Path, root: Path = ROOT) -> tuple[Path, ...]:
    """All source files that running `path` may execute, relative to the repository's root, sorted."""
    seen: set[Path] = set()
    todo = [path.resolve()]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo.extend(used_files(current, root))
            todo.extend(_packages_of(current, root))
    return tuple(sorted(file.relative_to(root) for file in seen))


def code_of(path: Path, root: Path = ROOT) -> dict[str, str]:
    """sha256 of each file of the closure of `path`, hex, by its path from the repository's root."""
    return {file.as_posix(): hashlib.sha256((root / file).read_bytes()).hexdigest() for file in closure(path, root)}


def digest_of_code(code: Mapping[str, str]) -> str:
    """sha256 over names and contents, hex."""
    total = hashlib.sha256()
    for name, digest in code.items():
        total.update(f"{name}\0".encode() + bytes.fromhex(digest))
    return total.hexdigest()


def code_digest(path: Path) -> str:
    """sha256 over names and contents of the closure of `path`, hex."""
    return digest_of_code(code_of(path))


def lock_digest() -> str:
    """sha256 of requirements.lock, hex."""
    return hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()
