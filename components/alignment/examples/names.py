"""Names that Python code binds and reads, by the interpreter's own symbol table.

Covers: every way to bind a name, scopes inside scopes, `global`.
Not covered: names that appear when the code runs (`globals()`, exec), and whether a name is bound before it is read.
"""

import ast
import builtins
import symtable
from collections.abc import Iterator

_KNOWN = frozenset(dir(builtins)) | {"__file__", "__class__"}  # __class__ is what super() reads in a method


def module_names(text: str) -> frozenset[str] | None:
    """Names that a module binds at its top level; None when a star import hides them.

    Raises what `symtable` does for a text that is no module: SyntaxError, ValueError or RecursionError.
    """
    imports = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom))
    if any(alias.name == "*" for node in imports for alias in node.names):
        return None
    return _bound(symtable.symtable(text, "module", "exec"))


def unresolved_names(function: str, known_names: frozenset[str] | None) -> frozenset[str]:
    """Names that a function reads and that neither it, nor its module, nor Python binds. `function` must compile."""
    if known_names is None:
        return frozenset()
    table = symtable.symtable(function, "function", "exec")
    read = {
        symbol.get_name()
        for scope in _scopes(table)
        for symbol in scope.get_symbols()
        if symbol.is_global() and symbol.is_referenced()
    }
    return frozenset(read - _bound(table) - known_names - _KNOWN)


def _bound(table: symtable.SymbolTable) -> frozenset[str]:
    """Names of the module's own scope that something in it binds."""
    return frozenset(
        symbol.get_name()
        for scope in _scopes(table)
        for symbol in scope.get_symbols()
        if (scope is table or symbol.is_declared_global()) and (symbol.is_assigned() or symbol.is_imported())
    )


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    todo = [table]
    while todo:
        scope = todo.pop()
        yield scope
        todo.extend(scope.get_children())
