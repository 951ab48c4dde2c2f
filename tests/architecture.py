"""The rules of the house, as functions over a tree of source files: for this repository and for planted violations."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from components.core.stages import Stage, read_all

# A module imports its own area and areas to its left.
LAYERS = (
    "core",
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
)
# The same loop runs under Ray and alone on a bare GPU box: the engine and all that it imports.
PLAIN_TORCH = (
    "accelerators",
    "attention",
    "batch",
    "bigrams",
    "checkpoint",
    "continued",
    "checkpoint_writer",
    "comparison",
    "cores",
    "engine",
    "figures",
    "float8",
    "forward",
    "induction",
    "liger",
    "loss",
    "memory",
    "masks",
    "model",
    "objectives.denoise",
    "objectives.infill",
    "objectives.masked",
    "objectives.mixture",
    "objectives.pieces",
    "optimizer",
    "pace",
    "parallel",
    "position",
    "prefetch",
    "probe",
    "reason",
    "roles",
    "schedule",
    "shape",
    "spikes",
    "strides",
    "trainer",
    "validation",
)
PLAIN_TORCH_IMPORTS = {"torch", "transformers", "numpy", "safetensors"}  # transformers brings safetensors
ONLY_IN = {"prefect": ("flows",), "mlflow": ("flows", "components/release")}
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib"}
MAX_LINES = 600
# Strings that are spelled as a stage and mean something else: what they are, by file.
WORDS = {
    "components/deadline/config.py": {"plan": "the stage that divides", "pretrain": "the one that takes what is left"},
    "components/data/check.py": {"clean": "a file of rules, suites/clean.json"},
    "flows/trace.py": dict.fromkeys(("check_raw", "clean", "preferences"), "a field of `overnight trace --json`"),
    "flows/trace_tables.py": dict.fromkeys(("check_raw", "clean", "preferences"), "a field of trace's answer"),
}


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
            if node.module in ("components", "flows"):
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
            yield f"{place}:{line}: names the stage {text}; ask components.core.stages for what it is or writes"
        elif match := written.search(text):
            yield f"{place}:{line}: names {match[1]}, a path of dvc.yaml; ask components.core.stages for it"


def violations(root: Path) -> list[str]:
    """Every broken rule below a root that holds components/ and flows/, as `file:line: what`."""
    found = []
    stages = read_all(root)
    for path in sorted([*(root / "components").rglob("*.py"), *(root / "flows").rglob("*.py")]):
        place = path.relative_to(root)
        for line, name in imports(path):
            found += [f"{place}:{line}: {reason}" for reason in _broken(place, name)]
        found += named_stages(root, place, stages)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES:
            found.append(f"{place}:{lines}: longer than {MAX_LINES} lines")
    return found


def _broken(place: Path, name: str) -> list[str]:
    reasons = []
    top = name.split(".")[0]
    if name.startswith("."):
        reasons.append("relative import")
    if top in FORBIDDEN:
        reasons.append(f"imports {top}; artifacts hold safetensors, Parquet, JSON and npy")
    if top == "pytest" or top == "tests":
        reasons.append("product code imports tests")
    for tool, places in ONLY_IN.items():
        if top == tool and not any(place.is_relative_to(each) for each in places):
            reasons.append(f"imports {tool}; only {' and '.join(places)} may")
    if place.parts[0] == "components":
        reasons += _broken_in_components(place, name, top)
    return reasons


def _broken_in_components(place: Path, name: str, top: str) -> list[str]:
    reasons = []
    if top == "flows":
        reasons.append("components import flows; what is done does not know when")
    area = place.parts[1] if len(place.parts) > 2 else None
    parts = name.split(".")
    known = area in LAYERS and top == "components" and len(parts) > 1 and parts[1] in LAYERS
    if known and LAYERS.index(parts[1]) > LAYERS.index(str(area)):
        reasons.append(f"{area} imports {parts[1]}, which lies to its right")
    if area == "training" and ".".join(place.with_suffix("").parts[2:]) in PLAIN_TORCH and not _is_plain_torch(name):
        reasons.append(f"the engine imports {name}; only torch, transformers, numpy and the standard library may")
    return reasons


def _is_plain_torch(name: str) -> bool:
    top = name.split(".")[0]
    engine = tuple(f"components.training.{each}" for each in PLAIN_TORCH)
    return top in sys.stdlib_module_names | PLAIN_TORCH_IMPORTS or name in engine or name == "components.training"
