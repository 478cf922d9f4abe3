"""Documents: what a read model's annotations say about how it is kept and searched.

A document is a frozen msgspec Struct. Its annotations are all that a read store needs::

    class AccountRow(msgspec.Struct, frozen=True):
        account_id: UUID                                  # keyword: exact, sortable
        name: Annotated[str, Text(keyword=True)]          # full text, and exact and sortable as well
        balance: Annotated[int, Indexed()]                # 64-bit whole number, with a B-tree in Postgres
        opened_at: datetime                               # exact to the microsecond
        metadata: dict[str, str]                          # searched as "metadata.colour"
        overdraft_limit: int | None                       # may be null
        legs: Annotated[list[Leg], Nested()]              # each leg a document of its own to Elasticsearch's client
        history: Annotated[list[Leg], Unindexed()]        # kept, not searchable

========================================  ==========  =====================================================
annotation                                kind        queries
========================================  ==========  =====================================================
str, UUID, Literal or Enum of str         keyword     Term, Terms, Range, Sort; case-sensitive, code-point order
Annotated[str, Text()]                    text        Match
Annotated[str, Text(keyword=True)]        text        Match and all of keyword
int, Literal or Enum of int               long        Term, Terms, Range, Sort; -2**63 to 2**63 - 1
float                                     double      Term, Terms, Range, Sort
bool                                      boolean     Term, Terms
datetime (with a time zone), date         as named    Term, Terms, Range, Sort
dict[str, str]                            flattened   Term, Terms on "field.key"
list[X] or tuple[X, ...] of the above     that of X   the same without Sort; any of the values may fit
a Struct, list of Structs                 per field   its fields, as "legs.account_id"; each value on its own
anything else that JSON can carry         stored      none
========================================  ==========  =====================================================

In Postgres, every Term is served by one GIN index; a field marked `Indexed` has a B-tree for Range and Sort.
Elasticsearch indexes every field and passes `Indexed` over.
"""

import hashlib
import re
import types
import typing
from collections.abc import Iterator
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

import msgspec

from cqrskit.errors import DefinitionError
from cqrskit.fields import Field, FieldKind, Indexed, Nested, Step, Text, Unindexed

__all__ = ["DocumentShape", "Field", "FieldKind", "Indexed", "Nested", "Step", "Text", "Unindexed", "shape_of"]

_SHAPE_VERSION = 1
"""Raise it when the same annotations begin to be stored in another way: every index is then due for a rebuild."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED_PREFIX = "cqrskit_"
_LONG = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_AWARE_DATETIME = Annotated[datetime, msgspec.Meta(tz=True)]
_ANALYZER = re.compile(r"[a-z][a-z0-9_]*")
FIELDS_MAX, DEPTH_MAX, NESTED_FIELDS_MAX = 900, 20, 50
"""Elasticsearch's own limits of one mapping, the first a little lower, as some fields are ours."""
_Marker = TypeVar("_Marker")


class DocumentShape(msgspec.Struct, frozen=True, eq=False):
    """The fields of one document class, by dotted name."""

    document: type[Any]
    fields: dict[str, Field]

    def find(self, name: str) -> Field | None:
        """The field of this dotted name; for ``metadata.colour``, the key ``colour`` of a flattened field."""
        field = self.fields.get(name)
        if field is not None:
            return field
        for flattened in self.fields.values():
            if flattened.kind is FieldKind.FLATTENED and name.startswith(flattened.name + "."):
                key = name.removeprefix(flattened.name + ".")
                path = (*flattened.path, Step(key, many=False))
                return msgspec.structs.replace(flattened, name=name, path=path) if key else None
        return None

    @property
    def descriptions(self) -> dict[str, str]:
        """Each field's description by name, sorted: what an index remembers, to be compared later."""
        return {name: self.fields[name].description for name in sorted(self.fields)}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when a field is added, removed, renamed or searched in another way."""
        content = msgspec.json.encode([_SHAPE_VERSION, self.descriptions])
        return hashlib.sha256(content).hexdigest()[:16]

    def differences_from(self, descriptions: dict[str, str]) -> list[str]:
        """One sentence per field in which an index with these `descriptions` differs from this shape."""
        ours, name = self.descriptions, self.document.__name__
        return [
            f"{field} is {ours.get(field, 'gone')} in {name}, but {descriptions.get(field, 'gone')} there"
            for field in sorted(ours.keys() | descriptions.keys())
            if ours.get(field) != descriptions.get(field)
        ]


_shapes: dict[type[msgspec.Struct], DocumentShape] = {}


def shape_of(document: type[msgspec.Struct]) -> DocumentShape:
    """The shape of a document class.

    Raises DefinitionError, naming the class and the field, when its documents could not be stored faithfully.
    """
    shape = _shapes.get(document)
    if shape is None:
        shape = _shapes[document] = _make_shape(document)
    return shape


def _make_shape(document: type[msgspec.Struct]) -> DocumentShape:
    if not (isinstance(document, type) and issubclass(document, msgspec.Struct)):
        raise DefinitionError(f"a document must be a msgspec Struct, not {document!r}")
    config = document.__struct_config__
    if not config.frozen:
        raise DefinitionError(f"document {document.__name__} must be frozen: declare it with `frozen=True`")
    _check_decodable(document)
    fields = {field.name: field for field in _fields_of(document, parents=(), optional=False, above=(document,))}
    for field in fields.values():
        _check_index(document, field, fields)
    _check_mapping(document, fields)
    return DocumentShape(document=document, fields=fields)


def _check_decodable(document: type[msgspec.Struct]) -> None:
    """Let msgspec judge the annotations, and refuse those whose value would not come back as it went."""
    try:
        msgspec.json.Decoder(document)
        info = msgspec.inspect.type_info(document)
    except (TypeError, NameError) as error:
        raise DefinitionError(f"document {document.__name__} cannot be stored: {error}") from error
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.CustomType):
            raise DefinitionError(
                f"field {field.name!r} of document {document.__name__} is a {field.type.cls.__name__}, which msgspec "
                "cannot carry as JSON; use str, int, float, bool, datetime, date, UUID, Enum, list, dict or a Struct"
            )


def _fields_of(
    struct: type[msgspec.Struct], *, parents: tuple[Step, ...], optional: bool, above: tuple[type, ...]
) -> Iterator[Field]:
    _check_struct(struct)
    hints = typing.get_type_hints(struct, include_extras=True)
    for attribute, name in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        _check_name(struct, name)
        found = _unwrap(hints[attribute])
        path = (*parents, Step(name, many=found.many, nested=_is_nested(struct, name, found, above)))
        if found.nested is not None and found.nested not in above:
            yield from _fields_of(
                found.nested, parents=path, optional=optional or found.nullable, above=(*above, found.nested)
            )
        else:
            yield _field(struct, found, path, optional=optional)


def _check_struct(struct: type[msgspec.Struct]) -> None:
    config = struct.__struct_config__
    for option in ("array_like", "omit_defaults", "forbid_unknown_fields"):
        if getattr(config, option):
            raise DefinitionError(
                f"document {struct.__name__} is declared with {option}=True: a stored document has every field by its "
                "name, and must stay readable while two versions of the code run; leave the option out"
            )


def _check_name(struct: type[msgspec.Struct], name: str) -> None:
    if _NAME.fullmatch(name) is None or name.startswith(_RESERVED_PREFIX):
        raise DefinitionError(
            f"field {name!r} of document {struct.__name__} needs another name: ASCII letters, digits and _, a letter "
            f"first, and not {_RESERVED_PREFIX!r} at the beginning"
        )


class _Unwrapped(msgspec.Struct):
    """An annotation taken apart: its markers, whether it may be null or a list, and what is left."""

    base: Any
    markers: tuple[Any, ...] = ()
    nullable: bool = False
    many: bool = False
    nested: type[msgspec.Struct] | None = None


def _unwrap(annotation: Any) -> _Unwrapped:
    found = _Unwrapped(annotation)
    lists = 0
    while True:
        origin, arguments = get_origin(found.base), get_args(found.base)
        if origin is Annotated:
            found.base, found.markers = arguments[0], (*found.markers, *arguments[1:])
        elif isinstance(found.base, typing.NewType):
            found.base = found.base.__supertype__
        elif origin in (Union, types.UnionType) and _one_beside_null(arguments) is not None:
            found.base, found.nullable = _one_beside_null(arguments), True
        elif origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
            found.base, lists = arguments[0], lists + 1
        else:
            break
    found.many = lists == 1
    marked = any(isinstance(marker, Unindexed) for marker in found.markers)
    if lists > 1:
        found.base = object
    elif not marked and isinstance(found.base, type) and issubclass(found.base, msgspec.Struct):
        found.nested = found.base
    return found


def _one_beside_null(arguments: tuple[Any, ...]) -> Any:
    others = [one for one in arguments if one not in (type(None), msgspec.UnsetType)]
    return others[0] if len(others) == 1 else None


def _is_nested(struct: type[msgspec.Struct], name: str, found: _Unwrapped, above: tuple[type, ...]) -> bool:
    if _marker(found, Nested) is None:
        return False
    if found.nested is None or not found.many or found.nested in above:
        raise DefinitionError(
            f"field {name!r} of document {struct.__name__}: Nested() is for a searchable list of Structs that do not "
            "hold one another"
        )
    return True


def _field(struct: type[msgspec.Struct], found: _Unwrapped, path: tuple[Step, ...], *, optional: bool) -> Field:
    name = ".".join(step.name for step in path)
    text = _marker(found, Text)
    if text is not None and (found.base is not str or _marker(found, Unindexed) is not None):
        raise DefinitionError(f"field {name!r} of document {struct.__name__}: Text() is for a searchable str only")
    if text is not None and text.analyzer is not None and _ANALYZER.fullmatch(text.analyzer) is None:
        raise DefinitionError(
            f"field {name!r} of document {struct.__name__}: {text.analyzer!r} cannot be an analyzer's name; use small "
            "letters, digits and _, a letter first"
        )
    kind, value_type, null_among = _kind_of(found)
    if kind is FieldKind.STORED:
        path = tuple(step._replace(many=False) for step in path)
    return Field(
        name=name,
        path=path,
        kind=kind,
        value_type=value_type,
        nullable=optional or found.nullable or null_among,
        exact=text is not None and text.keyword,
        analyzer=None if text is None else text.analyzer,
        index=_marker(found, Indexed),
    )


def _marker(found: _Unwrapped, marker: type[_Marker]) -> _Marker | None:
    """The marker of this class; it may be written as ``Text()`` or as ``Text``."""
    for one in found.markers:
        if isinstance(one, marker):
            return one
        if one is marker:
            return marker()
    return None


_SCALARS: dict[Any, tuple[FieldKind, Any]] = {
    str: (FieldKind.KEYWORD, str),
    UUID: (FieldKind.KEYWORD, UUID),
    int: (FieldKind.LONG, _LONG),
    float: (FieldKind.DOUBLE, float),
    bool: (FieldKind.BOOLEAN, bool),
    datetime: (FieldKind.DATETIME, _AWARE_DATETIME),
    date: (FieldKind.DATE, date),
}


def _kind_of(found: _Unwrapped) -> tuple[FieldKind, Any, bool]:
    """Kind, type of one value, and whether null is among the listed values."""
    base = found.base
    if _marker(found, Unindexed) is not None:
        return FieldKind.STORED, None, False
    if base in _SCALARS:
        kind, value_type = _SCALARS[base]
        return (FieldKind.TEXT if _marker(found, Text) else kind), value_type, False
    if get_origin(base) is dict and get_args(base) == (str, str) and not found.many:
        return FieldKind.FLATTENED, str, False
    return _kind_of_choices(base)


def _kind_of_choices(base: Any) -> tuple[FieldKind, Any, bool]:
    choices: list[Any] = []
    if get_origin(base) is Literal:
        choices = list(get_args(base))
    elif isinstance(base, type) and issubclass(base, Enum):
        choices = [member.value for member in base]
    kinds = {type(choice) for choice in choices} - {type(None)}
    null_among = None in choices
    if kinds == {str}:
        return FieldKind.KEYWORD, base, null_among
    if kinds == {int}:
        return FieldKind.LONG, base, null_among
    return FieldKind.STORED, None, False


def _check_index(document: type[msgspec.Struct], field: Field, fields: dict[str, Field]) -> None:
    if field.index is None:
        return
    where = f"field {field.name!r} of document {document.__name__}"
    if field.many or not field.ordered:
        raise DefinitionError(f"{where}: Indexed() is for a field with one sortable value, not for {field.description}")
    within = field.index.within
    if within is not None and (
        within not in fields or fields[within].many or fields[within].kind is not FieldKind.KEYWORD
    ):
        raise DefinitionError(f"{where}: Indexed(within={within!r}) must name a keyword field with one value")


def _check_mapping(document: type[msgspec.Struct], fields: dict[str, Field]) -> None:
    """Refuse what Elasticsearch would refuse, on whichever store the document is kept."""
    paths = [tuple(step.name for step in field.path) for field in fields.values()]
    objects = {path[:length] for path in paths for length in range(1, len(path))}
    subfields = sum(field.analyzer is not None for field in fields.values())
    nested = {
        tuple(step.name for step in field.path[: place + 1])
        for field in fields.values()
        for place, step in enumerate(field.path)
        if step.nested
    }
    for found, limit, what in (
        (len(paths) + len(objects) + subfields, FIELDS_MAX, "fields"),
        (max(map(len, paths), default=0), DEPTH_MAX, "levels"),
        (len(nested), NESTED_FIELDS_MAX, "Nested() lists"),
    ):
        if found > limit:
            raise DefinitionError(
                f"document {document.__name__} has {found} {what}; {limit} are possible: mark a part that is not "
                "searched with Unindexed()"
            )
