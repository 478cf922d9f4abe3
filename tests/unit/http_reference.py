"""Writes docs/reference/http-api.md from the ledger's OpenAPI document: ``python -m tests.unit.http_reference``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cqrskit import Settings
from example_ledger.app import create_app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http-api.md"
HEAD = """\
# The ledger over HTTP

<!-- written by `make reference` from the OpenAPI document, which a running ledger shows at /schema -->

{description}
An operation that needs a scope is shown an API key that has it, as `Authorization: Bearer KEY`
([give access](../how-to/give-access.md)). Parameters in *italics* may be left out; one that an operation does not
have is refused.
"""
Document = dict[str, Any]


def http_reference() -> str:
    """The page, as it should be now."""
    document = create_app(Settings()).openapi_schema.to_schema()
    sections = "\n".join(_sections(document))
    parts = [HEAD.format(description=document["info"]["description"]), *_contents(sections), "", sections]
    return "\n".join(parts).rstrip() + "\n"


def anchor_of(heading: str) -> str:
    """What a link to a heading says after the #, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _contents(sections: str) -> Iterator[str]:
    """A line of links for each section: to itself, then to all that is below it."""
    for section in re.split(r"^## ", sections, flags=re.MULTILINE)[1:]:
        heading, *below = [section.partition("\n")[0], *re.findall(r"^### (.+)$", section, re.MULTILINE)]
        links = [f"[{each}](#{anchor_of(each)})" for each in below]
        yield f"- [{heading}](#{anchor_of(heading)})" + (f": {', '.join(links)}" if links else "")


def _sections(document: Document) -> Iterator[str]:
    yield from _headers(document)
    tag, common = None, _common_codes(document)
    yield "## Every operation that needs a scope\n"
    yield from _replies({status: ", ".join(f"`{code}`" for code in codes) for status, codes in common.items()})
    for path, method, operation in _operations(document):
        if operation["tags"][0] != tag:
            tag = operation["tags"][0]
            yield f"## {tag.capitalize()}\n"
        yield from _operation(document, path, method, operation, common)
    yield from _bodies(document)
    yield from _codes(document)


def _operations(document: Document) -> list[tuple[str, str, Document]]:
    """Path, method and description of each, in the order of their tags' first appearance."""
    found = [(path, method, each) for path, item in document["paths"].items() for method, each in item.items()]
    tags = list(dict.fromkeys(each["tags"][0] for _, _, each in found))
    return sorted(found, key=lambda each: tags.index(each[2]["tags"][0]))


def _headers(document: Document) -> Iterator[str]:
    components = document["components"]
    yield "## Headers\n"
    yield "| header of a request | sent with | value | meaning |\n| --- | --- | --- | --- |"
    for name, header in components["parameters"].items():
        if name == header["name"]:
            yield f"| `{name}` | commands | {_kind(header['schema'])} | {header['description']} |"
    position = next(each for each in _parameters(document, "/accounts", "get") if each["in"] == "header")
    yield f"| `{position['name']}` | queries | {_kind(position['schema'])} | {position['description']} |\n"
    yield "| header of a reply | value | meaning |\n| --- | --- | --- |"
    for name, header in components["headers"].items():
        yield f"| `{name}` | {_kind(header['schema'])} | {header['description']} |"
    yield ""


def _parameters(document: Document, path: str, method: str) -> list[Document]:
    return [each for each in document["paths"][path][method]["parameters"] if "$ref" not in each]


def _common_codes(document: Document) -> dict[str, list[str]]:
    """By status, the codes of all operations that need a scope: they are told once."""
    each = [
        {(status, code) for status, response in operation["responses"].items() for code in _codes_of(response)}
        for _, _, operation in _operations(document)
        if _scope_of(operation)
    ]
    common: dict[str, list[str]] = {}
    for status, code in sorted(set.intersection(*each)):
        common.setdefault(status, []).append(code)
    return common


def _scope_of(operation: Document) -> str | None:
    scopes = [scope for each in operation.get("security", []) for scopes in each.values() for scope in scopes]
    return scopes[0] if scopes else None


def _replies(rows: dict[str, str]) -> Iterator[str]:
    yield "| status | reply |\n| --- | --- |"
    yield from (f"| {status} | {text} |" for status, text in rows.items() if text)
    yield ""


def _operation(
    document: Document, path: str, method: str, operation: Document, common: dict[str, list[str]]
) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield operation.get("description") or f"{operation['summary']}."
    scope = _scope_of(operation)
    yield f"\nScope: {f'`{scope}`' if scope else 'none, nor a key'}.\n"
    parameters = [each for each in _parameters(document, path, method) if each["in"] != "header"]
    if parameters:
        yield "| parameter | in | value | meaning |\n| --- | --- | --- | --- |"
        for each in parameters:
            name = f"`{each['name']}`" if each.get("required") else f"*`{each['name']}`*"
            yield f"| {name} | {each['in']} | {_kind(each['schema'])} | {each.get('description', '')} |"
        yield ""
    if "requestBody" in operation:
        yield f"Body: {_kind(operation['requestBody']['content']['application/json']['schema'])}.\n"
    told = common if scope else {}
    yield from _replies({status: _reply(each, told.get(status, [])) for status, each in operation["responses"].items()})


def _reply(response: Document, told: list[str]) -> str:
    media_type, content = next(iter(response["content"].items()))
    if media_type != "application/problem+json":
        body = _kind(content["schema"]) if media_type == "application/json" else media_type
        return body if response["description"] == "The answer" else f"{body}: {response['description']}"
    return ", ".join(f"`{code}`" for code in _codes_of(response) if code not in told)


def _codes_of(response: Document) -> list[str]:
    schema = response["content"].get("application/problem+json", {}).get("schema", {})
    return [
        code for part in schema.get("allOf", []) for code in part.get("properties", {}).get("code", {}).get("enum", [])
    ]


def _kind(schema: Document) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array{_bounds(schema, 'minItems', 'maxItems')} of {_kind(schema['items'])}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object{_bounds(schema, 'minProperties', 'maxProperties')} of {_kind(schema['additionalProperties'])}"
    said = str(schema.get("format") or schema.get("type", "any value"))
    return said + _bounds(schema, "minimum", "maximum") + _bounds(schema, "minLength", "maxLength", " characters")


def _bounds(schema: Document, low: str, high: str, unit: str = "") -> str:
    least, most = schema.get(low), schema.get(high)
    if least is None and most is None:
        return ""
    if most is None:
        return f", {least} or more{unit}"
    shown = "2^63 − 1" if most == 2**63 - 1 else f"{most:,}"
    return f", {'up' if least is None else least} to {shown}{unit}"


def _bodies(document: Document) -> Iterator[str]:
    yield "## Bodies\n"
    yield "Fields in *italics* may be left out of a request, and may be missing in a reply.\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"### {name}\n"
        yield schema.get("description", "") + "\n"
        yield "| field | value | default | meaning |\n| --- | --- | --- | --- |"
        for field, each in schema.get("properties", {}).items():
            shown = f"`{field}`" if field in schema.get("required", []) else f"*`{field}`*"
            default = "" if "default" not in each else f"`{'null' if each['default'] is None else each['default']}`"
            meaning = each.get("description") or next(
                (part["description"] for part in each.get("anyOf", []) if "description" in part), ""
            )
            yield f"| {shown} | {_kind(each)} | {default} | {meaning} |"
        yield ""


def _codes(document: Document) -> Iterator[str]:
    """Every code with its statuses and meaning, as the operations have them."""
    statuses: dict[str, set[str]] = {}
    meanings: dict[str, str] = {}
    for _, _, operation in _operations(document):
        for status, response in operation["responses"].items():
            for line in response["description"].splitlines():
                if line.startswith("- `"):
                    code, _, meaning = line.removeprefix("- `").partition("`: ")
                    statuses.setdefault(code, set()).add(status)
                    meanings[code] = meaning.removesuffix(".")
    yield "## Codes\n"
    yield "[HTTP errors](http-errors.md) says what the form of a problem is, and more of those that any service has.\n"
    yield "| code | status | meaning |\n| --- | --- | --- |"
    for code in sorted(statuses):
        yield f"| `{code}` | {', '.join(sorted(statuses[code]))} | {meanings[code]} |"


if __name__ == "__main__":
    PAGE.write_text(http_reference(), encoding="utf-8")
