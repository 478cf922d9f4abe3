"""The OpenAPI document of an app: what Litestar knows of its routes, made complete and exact.

Bodies are described by msgspec, which reads and writes them, so that no bound is lost. What the plugin does for each
route is described beside it: problems with their codes, headers of requests and replies, the API key.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from inspect import cleandoc, getdoc
from typing import Any

import msgspec
from litestar import Response
from litestar.enums import ParamType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, OpenAPI, SecurityScheme
from litestar.params import HeaderParameter, ParameterKwarg, QueryParameter
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from cqrskit.web.access import needed_scope
from cqrskit.web.openapi_headers import HEADERS, PARAMETERS, REQUEST_HEADERS
from cqrskit.web.openapi_problems import Codes, Traits, codes_of
from cqrskit.web.parameters import signatures_of, without_none
from cqrskit.web.problems import HTTP_PROBLEMS, PROBLEM_JSON, Problem

__all__ = ["ApiDescription"]

SECURITY_SCHEME = "api_key"
"""Name of what the document says of keys."""
TEMPLATE = "#/components/schemas/{name}"
JSON = "application/json"
Document = dict[str, Any]
Operation = tuple[Document, HTTPRouteHandler, HTTPRoute, str | None]
"""What the document says of one, its handler and route, and the scope that it needs."""

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}
_STATUS_TITLES = {409: "Conflict", 422: "Refused", 500: "The service failed", 503: "Not now"}


class ApiDescription:
    """Knows the routes of one app, and completes the document that Litestar makes of them.

    `statuses` are those of codes of refusals. `secured`: the app has API keys. `only_known_parameters`: it refuses
    query parameters that no route declares.
    """

    def __init__(self, *, statuses: Mapping[str, int], secured: bool, only_known_parameters: bool) -> None:
        self._statuses = statuses
        self._secured = secured
        self._only_known_parameters = only_known_parameters
        self._routes: dict[str, HTTPRoute] = {}

    def receive(self, route: HTTPRoute) -> None:
        """Take a route of the app into account; one that came before may have more methods now."""
        self._routes[route.path] = route

    def config(self, config: OpenAPIConfig, title: str) -> OpenAPIConfig:
        """The app's own configuration, or one with this title if it is Litestar's default, with a complete document."""
        values = dict(vars(config))
        if config.title == "Litestar API":
            values |= {"title": title, "use_handler_docstrings": True}
        if self._secured:
            components = config.components if isinstance(config.components, list) else [config.components]
            values["components"] = [*components, Components(security_schemes={SECURITY_SCHEME: _KEY})]
            values["security"] = [*(config.security or []), {SECURITY_SCHEME: []}]
        completed = _Config.__new__(_Config)  # without its deprecated fields being warned of again
        vars(completed).update(values)
        completed.description_of_api = self
        return completed

    def complete(self, document: Document) -> Document:
        """The document with all that is known."""
        operations = list(self._operations(document))
        names = Counter(handler.handler_name for _, handler, _, _ in operations)
        _describe_bodies(document, operations)
        for operation, handler, route, scope in operations:
            if names[handler.handler_name] == 1 and handler.operation_id is None:
                operation["operationId"] = handler.handler_name
            if handler.summary is None:
                operation["summary"] = _first_sentence(handler) or operation["summary"]
            if scope is not None:
                operation["security"] = [{SECURITY_SCHEME: [scope]}]
            traits = self._traits(handler, route, scope)
            _describe_parameters(operation, handler)
            operation["parameters"] = [*operation.get("parameters", []), *_request_headers(traits)]
            _describe_replies(operation, handler, traits)
            self._describe_problems(operation, handler, traits)
        components = document.setdefault("components", {})
        components["schemas"] = {**_problem_schema(), **components.get("schemas", {})}
        components["headers"] = {**HEADERS, **components.get("headers", {})}
        components["parameters"] = {**PARAMETERS, **components.get("parameters", {})}
        _leave_out_what_nobody_names(document)
        return document

    def _operations(self, document: Document) -> Iterator[Operation]:
        for route in self._routes.values():
            path_item = document["paths"].get(route.path_format or "/", {})
            for method, (handler, _) in route.route_handler_map.items():
                name = str(getattr(method, "value", method))
                operation = path_item.get(name.lower())
                if operation is not None:
                    yield operation, handler, route, needed_scope(handler, name) if self._secured else None

    def _traits(self, handler: HTTPRouteHandler, route: HTTPRoute, scope: str | None) -> Traits:
        wanted = {name for signature in signatures_of(handler) for name in signature.parameters}
        has_body = handler.parsed_data_field is not None
        declared = {name for _, name, _ in _declared_parameters(handler)}
        return Traits(
            is_open=scope is None,
            gives_commands="commands" in wanted,
            reads="reader" in wanted,
            has_body=has_body,
            has_path_parameters=bool(route.path_parameters),
            refuses_parameters=has_body or bool(declared) or "commands" in wanted or self._only_known_parameters,
            pages="reader" in wanted and "cursor" in declared,
        )

    def _describe_problems(self, operation: Document, handler: HTTPRouteHandler, traits: Traits) -> None:
        responses = operation["responses"]
        if "detail" in str(responses.get("400", {}).get("content", {}).get(JSON, {}).get("schema", {}).get("required")):
            del responses["400"]  # Litestar's own form of errors, which nobody is sent
        for status, codes in codes_of(handler, traits, self._statuses).items():
            responses.setdefault(str(status), _problem_response(status, codes, traits))
        operation["responses"] = dict(sorted(responses.items()))
        for response in operation["responses"].values():
            response.setdefault("headers", {})["X-Correlation-ID"] = _header("X-Correlation-ID")


_KEY = SecurityScheme(type="http", scheme="bearer", description="an API key, with the scope that each operation names")


class _Config(OpenAPIConfig):
    """A configuration whose document is completed when it is written out."""

    description_of_api: ApiDescription

    def to_openapi_schema(self) -> OpenAPI:
        """Litestar's document, which completes itself."""
        made = super().to_openapi_schema()
        completed = _Document(**{field.name: getattr(made, field.name) for field in fields(OpenAPI)})
        completed.description_of_api = self.description_of_api
        return completed


class _Document(OpenAPI):
    description_of_api: ApiDescription

    def to_schema(self) -> Document:
        """The document as plain JSON values."""
        return self.description_of_api.complete(super().to_schema())


def _first_sentence(handler: HTTPRouteHandler) -> str:
    paragraph = (getdoc(handler.fn) or "").partition("\n\n")[0].replace("\n", " ")
    return paragraph.partition(". ")[0].removesuffix(".")


# --- bodies


def _describe_bodies(document: Document, operations: list[Operation]) -> None:
    """Put what msgspec says of each body for what Litestar says, which stays where msgspec knows nothing."""
    places: list[tuple[Document, Any]] = []
    for operation, handler, *_ in operations:
        data = handler.parsed_data_field
        if data is not None and "requestBody" in operation:
            operation["requestBody"]["required"] = data.is_required
        sent = operation.get("requestBody", {}).get("content", {}).get(JSON)
        if data is not None and sent is not None and handler.resolve_data_dto() is None:
            places.append((sent, data.raw))
        answered = operation["responses"].get(str(handler.status_code), {}).get("content", {}).get(JSON)
        if answered is not None and handler.resolve_return_dto() is None:
            places.append((answered, _answer_of(handler)))
        for status, spec in (handler.responses or {}).items():
            other = operation["responses"].get(str(status), {}).get("content", {}).get(JSON)
            if other is not None and spec.data_container is not None:
                places.append((other, spec.data_container))
    places = [(place, kind) for place, kind in places if _is_describable(kind)]
    schemas, components = msgspec.json.schema_components([kind for _, kind in places], ref_template=TEMPLATE)
    for (place, _), schema in zip(places, schemas, strict=True):
        place["schema"] = schema
    for schema in components.values():
        if "description" in schema:  # a docstring, which Python 3.13 is the first to free of its indentation
            schema["description"] = cleandoc(schema["description"])
    known = document.setdefault("components", {}).setdefault("schemas", {})
    known.update(components)


def _answer_of(handler: HTTPRouteHandler) -> Any:
    returned = handler.parsed_fn_signature.return_type
    if returned.is_subclass_of(Response):
        return returned.inner_types[0].raw if returned.inner_types else Any
    return returned.raw


def _is_describable(kind: Any) -> bool:
    if kind is Any:
        return False
    try:
        msgspec.json.schema_components([kind], ref_template=TEMPLATE)
    except (TypeError, RuntimeError):
        return False
    return True


# --- parameters


def _declared_parameters(handler: HTTPRouteHandler) -> Iterator[tuple[str, str, FieldDefinition]]:
    """Where a parameter is sent, its name there, and what is declared of it."""
    for signature in signatures_of(handler):
        for name, field in signature.parameters.items():
            declared = field.kwarg_definition
            if isinstance(declared, QueryParameter):
                yield ParamType.QUERY.value, declared.name or name, field
            elif isinstance(declared, HeaderParameter):
                yield ParamType.HEADER.value, declared.name or name, field


def _describe_parameters(operation: Document, handler: HTTPRouteHandler) -> None:
    declared = {(place, name.lower()): field for place, name, field in _declared_parameters(handler)}
    for parameter in operation.get("parameters", []):
        field = declared.get((parameter["in"], parameter["name"].lower()))
        if field is not None:
            parameter["schema"] = _parameter_schema(field) or parameter["schema"]
        for name in ("allowEmptyValue", "allowReserved", "deprecated"):
            if parameter.get(name) is False:
                del parameter[name]


def _parameter_schema(field: FieldDefinition) -> Document | None:
    """What may be sent for a parameter; one that may be left out is never sent as null."""
    kind = without_none(field.raw)
    if not _is_describable(kind):
        return None
    schema = dict(msgspec.json.schema(kind))
    declared = field.kwarg_definition
    assert isinstance(declared, ParameterKwarg), "parameters are declared as such"
    for name, keyword in _BOUNDS.items():
        bound = getattr(declared, name)
        if bound is not None:
            schema[keyword] = bound
    schema |= declared.schema_extra or {}
    if field.has_default and field.default is not None:
        schema["default"] = field.default
    return schema


def _request_headers(traits: Traits) -> list[Document]:
    names = REQUEST_HEADERS["commands" if traits.gives_commands else "queries"]
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


# --- replies


def _header(name: str) -> Document:
    return {"$ref": f"#/components/headers/{name}"}


def _describe_replies(operation: Document, handler: HTTPRouteHandler, traits: Traits) -> None:
    """What a reply to a command carries, and that a retry has status 200."""
    responses = operation["responses"]
    success = responses[str(handler.status_code)]
    if not traits.gives_commands:
        if handler.response_description is None:
            success["description"] = "The answer"
        return
    names = ("Consistency-Position", "Idempotent-Replay")
    headers = {name: _header(name) for name in names}
    if handler.response_description is None:
        success["description"] = "done, and durable"
    success["headers"] = {**success.get("headers", {}), **headers}
    if str(handler.status_code) != "200" and "200" not in responses:
        again = {**success, "description": "a retry, which gets the first reply again"}
        responses["200"] = {**again, "headers": dict(success["headers"])}
        del success["headers"]["Idempotent-Replay"]


def _problem_response(status: int, codes: Codes | None, traits: Traits) -> Document:
    title = _STATUS_TITLES.get(status) or HTTP_PROBLEMS.get(status, ("", f"Status {status}"))[1]
    schema: Document = {"$ref": TEMPLATE.format(name="Problem")}
    meanings = ""
    if codes is not None:
        narrowed = {"properties": {"status": {"const": status}, "code": {"enum": sorted(codes)}}}
        schema = {"allOf": [schema, narrowed]}
        meanings = "".join(f"\n- `{code}`: {meaning}" for code, meaning in sorted(codes.items()))
    response: Document = {
        "description": title + (":\n" + meanings if meanings else ""),
        "content": {PROBLEM_JSON: {"schema": schema}},
        "headers": {},
    }
    if status in (401, 403) and not traits.is_open:
        response["headers"]["WWW-Authenticate"] = _header("WWW-Authenticate")
    if status in (429, 503):
        response["headers"]["Retry-After"] = _header("Retry-After")
    if traits.gives_commands and status in (404, 409, 422):
        response["headers"]["Idempotent-Replay"] = _header("Idempotent-Replay")
    return response


def _problem_schema() -> Document:
    _, components = msgspec.json.schema_components([Problem], ref_template=TEMPLATE)
    problem = dict(components["Problem"])
    kind = {"const": "about:blank", "description": "RFC 9457: `code` is what tells kinds apart"}
    problem["properties"] = {"type": kind, **problem["properties"]}
    problem["required"] = ["type", *problem["required"]]
    return {**components, "Problem": problem}


def _leave_out_what_nobody_names(document: Document) -> None:
    """Schemas that Litestar made for bodies which msgspec describes otherwise, and headers that no route has."""
    components = document["components"]
    while True:
        text = msgspec.json.encode(document).decode()
        gone = [
            (section, name)
            for section in ("schemas", "headers", "parameters")
            for name in components.get(section, {})
            if f'"#/components/{section}/{name}"' not in text
        ]
        if not gone:
            return
        for section, name in gone:
            del components[section][name]
