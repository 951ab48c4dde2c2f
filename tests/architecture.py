"""The rules of the house, as functions over a tree of source files: for this repository and for planted violations."""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from components.core.graph.stages import Stage, read_all

# A module imports its own area and areas to its left. All but the last two are folders of components/.
LAYERS = (
    "core",
    "machine",
    "data",
    "tokens",
    "deadline",
    "training",
    "inference",
    "execution",
    "alignment",
    "evaluation",
    "serving",
    "release",
    "lineage",
    "dashboards",
    "flows",
)
OUTSIDE = LAYERS[-2:]
# The same loop runs under Ray and alone on a bare GPU box.
ENGINE = "components.training.engine"
PLAIN_TORCH_IMPORTS = {"torch", "transformers", "numpy", "safetensors"}  # transformers brings safetensors
ONLY_IN = {"prefect": ("flows",), "mlflow": ("flows", "components/release")}
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib"}
MAX_LINES = 600
MAX_FILES = 15
# Strings that are spelled as a stage and mean something else: what they are, by file.
WORDS = {
    "components/alignment/config.py": {"sft": "a loss on pairs, by TRL's name"},
    "components/deadline/config.py": {"plan": "the stage that divides", "pretrain": "the one that takes what is left"},
    "components/data/check.py": {"clean": "a file of rules, suites/clean.json"},
    "components/lineage/document_trace.py": dict.fromkeys(
        ("check_raw", "clean", "instructions", "preferences"), "a field of `overnight trace --json`"
    ),
    "flows/commands/trace_tables.py": dict.fromkeys(
        ("check_raw", "clean", "instructions", "preferences"), "a field of trace's answer"
    ),
    "components/training/planning/hardware.py": {"instructions": "what a processor can do"},
}


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
            if node.module == "components" or node.module in OUTSIDE:
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string in a file that is no docstring, also of those within others."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, documents) and node.body]
    docstrings = {id(each.value) for each in first if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def named_stages(root: Path, place: Path, stages: list[Stage]) -> Iterator[str]:
    """Where a file says the name of a stage that is not its own, or the path of any artifact: dvc.yaml alone knows
    both. Names count as whole strings, paths anywhere in one; what attributes and docstrings say is not looked at."""
    others = {each.name for each in stages if each.module_path != place} - WORDS.get(str(place), {}).keys()
    paths = "|".join(re.escape(str(path)) for each in stages for path in each.outputs)
    written = re.compile(rf"(?<![\w/.-])({paths})(?![\w-])")
    for line, text in strings(root / place):
        if text in others:
            yield f"{place}:{line}: names the stage {text}; ask components.core.graph.stages for what it is or writes"
        elif match := written.search(text):
            yield f"{place}:{line}: names {match[1]}, a path of dvc.yaml; ask components.core.graph.stages for it"


def modules(root: Path) -> list[Path]:
    """Every source file of the product below a root, relative to it."""
    found = [path for name in ("components", *OUTSIDE) for path in (root / name).rglob("*.py")]
    return sorted(path.relative_to(root) for path in found)


def violations(root: Path) -> list[str]:
    """Every broken rule below a root, as `file:line: what`, or `folder: what`."""
    found = []
    stages = read_all(root)
    for place in modules(root):
        for line, name in imports(root / place):
            found += [f"{place}:{line}: {reason}" for reason in _broken(place, name)]
        found += named_stages(root, place, stages)
        if (lines := len((root / place).read_text(encoding="utf-8").splitlines())) > MAX_LINES:
            found.append(f"{place}:{lines}: longer than {MAX_LINES} lines")
    for folder in sorted({each.parent for each in modules(root)}):
        files = [each for each in (root / folder).iterdir() if each.is_file()]
        if len(files) > MAX_FILES:
            found.append(f"{folder}: {len(files)} files; give some of them a room, at most {MAX_FILES} fit")
    return found


def circle(root: Path) -> list[str]:
    """Modules that import each other in a circle as they are imported; empty when there is none."""
    names = {".".join(place.with_suffix("").parts).removesuffix(".__init__"): place for place in modules(root)}
    graph: dict[str, set[str]] = {}
    for name, place in names.items():
        tree = ast.parse((root / place).read_text(encoding="utf-8"))
        wanted: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[name] = {each for each in wanted if each in names and names[each].name != "__init__.py"} - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def area_of(parts: Sequence[str]) -> str | None:
    """The area of a module by the parts of its dotted name; None for what belongs to none."""
    place = parts[1:2] if parts[0] == "components" else parts[:1]
    return place[0] if place and place[0] in LAYERS else None


def _broken(place: Path, name: str) -> list[str]:
    reasons = []
    parts, own = name.split("."), place.with_suffix("").parts
    if name.startswith("."):
        reasons.append("relative import")
    if parts[0] in FORBIDDEN:
        reasons.append(f"imports {parts[0]}; artifacts hold safetensors, Parquet, JSON and npy")
    if parts[0] in ("pytest", "tests"):
        reasons.append("product code imports tests")
    for tool, places in ONLY_IN.items():
        if parts[0] == tool and not any(place.is_relative_to(each) for each in places):
            reasons.append(f"imports {tool}; only {' and '.join(places)} may")
    area, other = area_of(own), area_of(parts)
    if area and other and LAYERS.index(other) > LAYERS.index(area):
        reasons.append(f"{area} imports {other}, which lies to its right")
    if ".".join(own).startswith(f"{ENGINE}.") and not _is_plain_torch(name):
        reasons.append(f"the engine imports {name}; only torch, transformers, numpy and the standard library may")
    return reasons


def _is_plain_torch(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names | PLAIN_TORCH_IMPORTS or name.startswith(ENGINE)
