"""Fingerprints of a projection: whether its documents would be made otherwise, or kept otherwise, than they were.

The fingerprint of the folds is made from the source of all that they are: the methods of the projection class and its
bases, the key functions, the document and event classes, the upcasters of these events, and whatever functions, classes
and constants of the same package these name, and so on. Docstrings, comments, layout, and the order of methods that do
not fold the same event are left out. Code that is reached in another way (a library, an object made elsewhere) is not
seen; for that there is `Projection.revision`.
"""

import ast
import hashlib
import inspect
import linecache
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cached_property, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import msgspec

from cqrskit.document import shape_of
from cqrskit.event_versions import upcasters_of
from cqrskit.projection import Projection, folds_of

__all__ = ["Fingerprint", "fingerprint_of"]

_PASSED_OVER = frozenset({"ctx", "kind", "type_comment", "type_ignores", "type_params", "decorator_list"})
"""Fields of the syntax tree that say nothing of what code does, or that some versions of Python lack."""
_ANNOTATIONS = frozenset({"annotation", "returns"})
_DECLARED = frozenset({"name", "document", "partitions", "elasticsearch"})
"""What a projection class declares beside its folds; its documents have a fingerprint of their own."""
_OF_AGGREGATES = frozenset({"apply", "mutate"})
"""Methods of events that aggregates call, no folds."""
_PLAIN = (int, str, bytes, float, complex, bool, type(None))
_UNFOLLOWED_ROOTS = frozenset({"cqrskit"}) | sys.stdlib_module_names


class Fingerprint(msgspec.Struct, frozen=True):
    """Both fingerprints, of 16 hexadecimal digits: of how documents are kept, and of how they are folded."""

    shape: str
    folds: str


_fingerprints: dict[type[Projection], Fingerprint] = {}


def fingerprint_of(projection: type[Projection]) -> Fingerprint:
    """The fingerprint of a projection as its code is now; the same in all processes and versions of Python."""
    known = _fingerprints.get(projection)
    if known is None:
        walk = _Walk(projection.__module__)
        walk.add_projection(projection)
        content = "\n".join([f"revision {projection.revision}", *walk.folds, *sorted(walk.parts)])
        digest = hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()
        known = Fingerprint(shape=shape_of(projection.document).fingerprint, folds=digest[:16])
        _fingerprints[projection] = known
    return known


class _Walk:
    """Collects, as texts without an order, all code that a projection's folds depend on."""

    def __init__(self, module: str) -> None:
        self.folds: list[str] = []
        self.parts: set[str] = set()
        self._module = module
        self._seen: set[int] = set()
        self._kept: list[Any] = []
        self._trees: dict[str, ast.Module | None] = {}

    def add_projection(self, projection: type[Projection]) -> None:
        """The projection's folds, in the order in which they apply, and all they name."""
        for stored_name, folds in sorted(folds_of(projection()).items()):
            for fold in folds:
                key = getattr(fold.key, "__qualname__", type(fold.key).__qualname__).rpartition(".")[2]
                self.folds.append(f"{stored_name} {fold.method} {key} {fold.creates} {fold.takes_key}")
                self._add(fold.key)
                # Its methods, which folds call; its fields are guarded by `cqrskit schema`.
                for each in reversed(fold.event_class.__mro__):
                    self._add_class(each, fields=False, left_out=_OF_AGGREGATES)
                for upcaster in upcasters_of(fold.event_class):
                    self._add(upcaster)
        for each in projection.__mro__[: projection.__mro__.index(Projection)]:
            self._add_class(each, left_out=_DECLARED)
        self._add(projection.document)

    # --- objects

    def _add(self, found: Any, name: str = "") -> None:
        """A function or class with all that it names; anything else that has a plain value, under its name."""
        if isinstance(found, type):
            for each in reversed(found.__mro__):
                self._add_class(each)
        elif _is_code(found):
            for function in _functions_of(found):
                self._add_function(function)
        elif name and (plain := _plain(found)) is not None:
            self.parts.add(f"{name} = {plain}")
        elif callable(found):
            self._add(type(found))

    def _is_new(self, found: Any) -> bool:
        if id(found) in self._seen:
            return False
        self._seen.add(id(found))
        self._kept.append(found)  # as long as it lives, nothing else gets its id
        return True

    def _follows(self, module: str | None) -> bool:
        """Whether code of a module is the application's own: of the same package, or a file beside it."""
        if not module:
            return False
        root, own = module.partition(".")[0], self._module.partition(".")[0]
        if root == own:
            return True
        if "." in self._module or root in _UNFOLLOWED_ROOTS:
            return False
        files = [getattr(sys.modules.get(each), "__file__", None) for each in (root, own)]
        return None not in files and len({str(each).rpartition("/")[0] for each in files}) == 1

    def _add_function(self, function: FunctionType) -> None:
        if not self._follows(function.__module__) or not self._is_new(function):
            return
        scope = {**function.__globals__, **_closure_of(function)}
        nodes = self._nodes_of(function)
        if not nodes:
            self.parts.add(_of_code(function.__code__, function.__doc__))
            for name in _names_in_code(function.__code__):
                self._add_named(name, (), scope, function.__module__)
        for node in nodes:
            self.parts.add(_normalised(node))
            self._add_names(node, scope, function.__module__)

    def _add_class(self, added: type[Any], *, fields: bool = True, left_out: frozenset[str] = frozenset()) -> None:
        if not self._follows(added.__module__) or not self._is_new(added):
            return
        if issubclass(added, Enum):
            self.parts.update(f"{added.__name__}.{each.name} = {each.value!r}" for each in added)
        node = self._class_node(added)
        scope = vars(sys.modules[added.__module__]) if added.__module__ in sys.modules else {}
        for statement in [] if node is None else node.body:
            targets = _targets(statement)
            if targets and not targets & left_out:
                if fields:
                    self.parts.add(f"{added.__name__}: {_normalised(statement, annotations=True)}")
                self._add_names(statement, scope, added.__module__, annotations=True)
        for name, found in vars(added).items():
            if name not in left_out and _is_written(name, found) and (node is None or _is_code(found)):
                self._add(found, f"{added.__name__}.{name}")

    # --- names

    def _add_names(self, node: ast.AST, scope: dict[str, Any], module: str, *, annotations: bool = False) -> None:
        for name, attributes in _names_in(node, annotations=annotations):
            self._add_named(name, attributes, scope, module)

    def _add_named(self, name: str, attributes: tuple[str, ...], scope: dict[str, Any], module: str) -> None:
        """What a name, or a dotted name, stands for; for other values than plain ones, the code that made them."""
        if name not in scope:
            return
        found: Any = scope[name]
        for attribute in attributes:
            if not isinstance(found, ModuleType | type) or (isinstance(found, type) and issubclass(found, Enum)):
                break
            inner = inspect.getattr_static(found, attribute, None)
            if inner is None:
                break
            module, name = found.__name__ if isinstance(found, ModuleType) else "", attribute
            found = inner
        if isinstance(found, ModuleType):
            return
        if _is_code(found) or isinstance(found, type) or _plain(found) is not None:
            self._add(found, name)
        elif self._follows(module):
            self._add_assignment(name, module)

    def _add_assignment(self, name: str, module: str) -> None:
        """The statement that gives a module's name its value, wherever it was imported from."""
        tree = self._tree(getattr(sys.modules.get(module), "__file__", None))
        for statement in [] if tree is None else tree.body:
            if name in _targets(statement):
                text = f"{name}: {_normalised(statement)}"
                if text not in self.parts:
                    self.parts.add(text)
                    self._add_names(statement, vars(sys.modules[module]), module)
            elif isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    origin = _origin(statement, module)
                    if (alias.asname or alias.name) == name and self._follows(origin) and origin != module:
                        self._add_assignment(alias.name, origin)

    # --- source

    def _tree(self, filename: str | None) -> ast.Module | None:
        if filename is None:
            return None
        if filename not in self._trees:
            linecache.checkcache(filename)
            source = "".join(linecache.getlines(filename))
            try:
                self._trees[filename] = ast.parse(source) if source else None
            except SyntaxError:
                self._trees[filename] = None
        return self._trees[filename]

    def _nodes_of(self, function: FunctionType) -> list[ast.AST]:
        """The syntax of a function; of lambdas that begin in one line, all. Empty without source."""
        code = function.__code__
        tree = self._tree(code.co_filename)
        if tree is None:
            return []
        if code.co_name == "<lambda>":
            lambdas = (each for each in ast.walk(tree) if isinstance(each, ast.Lambda))
            return [each for each in lambdas if each.lineno == code.co_firstlineno]
        return [
            each
            for each in ast.walk(tree)
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            and each.name == code.co_name
            and min([each.lineno, *(one.lineno for one in each.decorator_list)]) == code.co_firstlineno
        ]

    def _class_node(self, added: type[Any]) -> ast.ClassDef | None:
        """The syntax of a class; of several of one name, the last."""
        tree = self._tree(getattr(sys.modules.get(added.__module__), "__file__", None))
        nodes: list[ast.AST] = [] if tree is None else [tree]
        for part in added.__qualname__.split("."):
            if part != "<locals>":
                nodes = [inner for node in nodes for inner in ast.walk(node) if getattr(inner, "name", None) == part]
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        return classes[-1] if classes else None


# --- values and functions


def _plain(value: Any) -> str | None:
    """A text for values that cannot change, the same in all processes; None for other values."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name} = {value.value!r}"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple | frozenset):
        inner = [_plain(each) for each in value]
        texts = [each for each in inner if each is not None]
        if len(texts) == len(inner):
            return f"({', '.join(texts)})" if isinstance(value, tuple) else f"{{{', '.join(sorted(texts))}}}"
    return None


def _is_code(found: Any) -> bool:
    """Whether this runs functions that are written somewhere: a function, or what a decorator made of one."""
    return (
        isinstance(found, FunctionType | MethodType | staticmethod | classmethod | property | cached_property | partial)
        or hasattr(type(found), "__wrapped__")
        or "__wrapped__" in getattr(found, "__dict__", {})
    )


def _functions_of(found: Any) -> Iterator[FunctionType]:
    """The functions behind what `_is_code`, those inside a decorated one too."""
    if isinstance(found, FunctionType):
        yield found
    inner = [getattr(found, name, None) for name in ("__func__", "fget", "fset", "func", "__wrapped__")]
    if isinstance(found, partial):
        inner += [*found.args, *found.keywords.values()]
    for each in inner:
        if each is not None and _is_code(each):
            yield from _functions_of(each)


def _closure_of(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # not yet bound
    return found


def _is_written(name: str, found: Any) -> bool:
    """Whether a class's attribute was written by somebody, not made by Python or by a decorator such as dataclass."""
    if isinstance(found, type):
        return False
    if not name.startswith("__"):
        return True
    return isinstance(found, FunctionType) and not found.__code__.co_filename.startswith("<")


def _of_code(code: CodeType, doc: str | None) -> str:
    """Bytecode as text, where there is no source; another version of Python makes another."""
    constants = [
        _of_code(each, None) if isinstance(each, CodeType) else str(_plain(each))
        for each in code.co_consts
        if doc is None or each != doc
    ]
    return f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _names_in_code(code: CodeType) -> Iterator[str]:
    yield from (*code.co_names, *code.co_freevars)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names_in_code(each)


# --- syntax


def _normalised(node: Any, *, annotations: bool = False) -> str:
    """Syntax as text, without positions, docstrings and `pass`; without annotations, where they do nothing."""
    if isinstance(node, list):
        return f"[{' '.join(_normalised(each, annotations=annotations) for each in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name in node._fields:
        value = getattr(node, name, None)
        if name in _PASSED_OVER or (name in _ANNOTATIONS and not annotations) or value is None or value == []:
            continue
        if name == "body" and isinstance(value, list):
            value = _without_docstring(node, value)
        if isinstance(node, ast.JoinedStr):
            value = [each for each in value if not (isinstance(each, ast.Constant) and each.value == "")]
        parts.append(f"{name}={_normalised(value, annotations=annotations)}")
    return f"{type(node).__name__}({' '.join(parts)})"


def _without_docstring(node: ast.AST, body: list[ast.stmt]) -> list[ast.stmt]:
    has_one = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and _is_text(body[0])
    return [each for each in (body[1:] if has_one else body) if not isinstance(each, ast.Pass)]


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _names_in(node: Any, *, annotations: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names that the syntax reads, each with the attributes that are taken of it, such as ``money``, ``(Rate, of)``."""
    attributes: tuple[str, ...] = ()
    inner = node
    while isinstance(inner, ast.Attribute):
        attributes = (inner.attr, *attributes)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield inner.id, attributes
        return
    if isinstance(inner, ast.AST):
        for name in inner._fields:
            if name not in _PASSED_OVER and (annotations or name not in _ANNOTATIONS):
                yield from _names_in(getattr(inner, name, None), annotations=annotations)
    elif isinstance(inner, list):
        for each in inner:
            yield from _names_in(each, annotations=annotations)


def _targets(statement: ast.stmt) -> set[str]:
    """The names that an assignment gives values to, or declares."""
    targets: Iterable[ast.expr] = ()
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}


def _origin(statement: ast.ImportFrom, module: str) -> str:
    """The module that an import in `module` takes names from."""
    if not statement.level:
        return statement.module or ""
    package = str(getattr(sys.modules.get(module), "__package__", "") or "").split(".")
    base = package[: len(package) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])
