#!/usr/bin/env python3
"""Takes the limits of the emulator's operations out of CDF's published API description.

    extract.py DESCRIPTION.json        writes limits.json beside this file

DESCRIPTION.json is CDF's OpenAPI 3.1 description as Cognite publishes it. It is needed only to renew limits.json, never to
build or to run anything. limits.json holds facts alone: which fields there are, of which type, which are required, how
long, how many, which values. No text and no name of a schema of the description is taken over; where a schema is used
more than once, it is called here after the field that first has it.

What a schema may have in limits.json:
  type          string, integer, number, boolean, array, object; absent: anything
  null          true: null is a value too
  enum, not (a list of values), pattern, minLength, maxLength, minimum, maximum, items, minItems, maxItems, uniqueItems    as in JSON Schema
  fields, required    of an object: what it may have (nothing else), what it must have
  values              of an object: the schema of the values under any other key
  minProperties, maxProperties, keyBytes, totalBytes    of such an object
  any           a list of schemas, one of which must hold
  ref           the name of a schema under "schemas"
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
# The paths that the emulator serves, as regular expressions; "/{…}" stands for a parameter.
SERVED = r"""
    /(assets|events|timeseries|files|sequences)(/\{id\}|/list|/byids|/update|/delete)?
    /(datasets|labels|relationships)(/list|/byids|/update|/delete)?
    /timeseries/data(/list|/latest|/delete)?
    /sequences/data(/list|/delete)?
    /raw/.*
    /models/(spaces|containers|views)(/byids)?
    /models/instances(/list|/byids|/delete)?
""".split()
KEPT = ("enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "uniqueItems",
        "minProperties", "maxProperties")
# Where the words of the description, and its examples, contradict its schema: a polygon has one ring or more.
SLIPS = {"PolygonCoordinates": {"minItems": 1}}
# A language of its own, which the emulator does not have (501).
UNREAD = ("advancedFilter",)
ANYTHING = {"type": "object"}
# Of longer enumerations (the languages of a collation) only the type is kept.
MOST_VALUES = 50
# What integers can be at all; the description names the format instead of the bounds.
FORMATS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}


class Extractor:
    def __init__(self, description):
        self.description = description
        self.schemas = {}
        self.open = []
        self.recursive = {}

    def lookup(self, reference):
        found = self.description
        for part in reference.removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def schema(self, schema, field):
        """A schema of the description in the table's words, references replaced by what they stand for."""
        if "$ref" in schema:
            name = schema["$ref"]
            if name in self.open:
                # It contains itself.
                return {"ref": self.recursive.setdefault(name, self.name(field))}
            self.open.append(name)
            made = self.schema({**self.lookup(name), **SLIPS.get(name.rpartition("/")[2], {})}, field)
            self.open.pop()
            if name in self.recursive:
                self.schemas[self.recursive[name]] = made
                made = {"ref": self.recursive[name]}
            return made
        own = self.plain(schema, field)
        parts = [self.schema(part, field) for part in schema.get("allOf", [])]
        alternatives = schema.get("oneOf") or schema.get("anyOf")
        if alternatives:
            options = [self.schema(part, field) for part in alternatives]
            self.discriminate(schema, alternatives, options)
            parts.append(any_of(options))
        for part in parts:
            own = self.both(own, part)
        return own

    def discriminate(self, schema, alternatives, options):
        """Each alternative's value of the field that tells them apart, where the alternatives do not say it."""
        discriminator = schema.get("discriminator")
        if not discriminator:
            return
        mapping = {target: value for value, target in discriminator.get("mapping", {}).items()}
        for alternative, option in zip(alternatives, options):
            value = mapping.get(alternative.get("$ref"))
            if value is not None and option.get("type") == "object":
                option["fields"] = {**option.get("fields", {}), discriminator["propertyName"]: {"type": "string", "enum": [value]}}

    def plain(self, schema, field):
        made = {}
        # Says no more about an object than its parts do.
        combined = any(key in schema for key in ("allOf", "oneOf", "anyOf"))
        kinds = schema.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds] if kinds else []
        if "null" in kinds or schema.get("nullable"):
            made["null"] = True
        kinds = [kind for kind in kinds if kind != "null"]
        if not kinds and ("properties" in schema or "additionalProperties" in schema):
            kinds = ["object"]
        if not kinds and "items" in schema:
            kinds = ["array"]
        if len(kinds) > 1:
            return any_of([self.plain({**schema, "type": kind}, field) for kind in kinds])
        if kinds:
            made["type"] = kinds[0]
        made.update({key: schema[key] for key in KEPT if key in schema and schema[key] is not False})
        if "required" in schema:
            made["required"] = schema["required"]
        if made.get("type") == "object":
            made.pop("uniqueItems", None)
        if len(made.get("enum", [])) > MOST_VALUES:
            del made["enum"]
        if not kinds and schema.get("format") in FORMATS:
            made["type"] = "integer"
        if "pattern" in made:
            self.pattern(made)
        if "const" in schema:
            made["enum"] = [schema["const"]]
        for key, name in (("x-maxKeyLength", "keyBytes"), ("x-maxTotalSize", "totalBytes")):
            if key in schema:
                made[name] = schema[key]
        if made.get("type") == "integer" and schema.get("format") in FORMATS:
            least, most = FORMATS[schema["format"]]
            made["minimum"] = max(least, made.get("minimum", least))
            made["maximum"] = min(most, made.get("maximum", most))
        if made.get("type") == "array" and "items" in schema:
            made["items"] = self.schema(schema["items"], field)
        if made.get("type") == "object" and not (combined and "properties" not in schema and "additionalProperties" not in schema):
            properties = schema.get("properties", {})
            made["fields"] = {name: self.schema(ANYTHING if name in UNREAD else of, name) for name, of in properties.items()}
            more = schema.get("additionalProperties")
            if isinstance(more, dict):
                more = {key: value for key, value in more.items() if key != "x-additionalPropertiesName"}
                for key in ("minProperties", "maxProperties"):
                    # Where the description puts the object's limit beside its values.
                    if key in more:
                        made[key] = more.pop(key)
                made["values"] = self.schema(more, field)
            elif more is True or (not properties and made.get("maxProperties") != 0 and more is not False):
                made["values"] = {}
            if not made["fields"]:
                del made["fields"]
        return made

    def pattern(self, made):
        """Without what not every engine of regular expressions has: names that are taken become a list of their own."""
        taken = re.match(r"\(\?!\^\(([\w|]+)\)\$\)\((.*)\)$", made["pattern"])
        if taken:
            made["not"], made["pattern"] = taken[1].split("|"), taken[2]
        # The description escapes the NUL once more than it means.
        made["pattern"] = made["pattern"].replace(r"\\x00", r"\x00")

    def both(self, a, b):
        """What holds for both of two schemas."""
        if "ref" in b or "ref" in a:
            if a in ({}, {"type": "object"}, b):
                return b
            if not b:
                return a
            other = a["ref"] if "ref" in a else b["ref"]
            raise SystemExit(f"cannot combine with the recursive schema {other}")
        if "any" in a or "any" in b:
            made = [self.both(left, right) for left in a.get("any", [a]) for right in b.get("any", [b])]
            return any_of(made)
        made = {**a, **b}
        if "fields" in a or "fields" in b:
            made["fields"] = {**a.get("fields", {}), **b.get("fields", {})}
            for name in a.get("fields", {}).keys() & b.get("fields", {}).keys():
                made["fields"][name] = self.both(a["fields"][name], b["fields"][name])
            # An object of no fields that says more about another one leaves nothing open.
            if made.get("values") == {}:
                del made["values"]
        required = list(dict.fromkeys(a.get("required", []) + b.get("required", [])))
        if required:
            made["required"] = required
        if "enum" in a and "enum" in b:
            made["enum"] = [value for value in a["enum"] if value in b["enum"]]
        return made

    def name(self, field):
        names = {*self.schemas, *self.recursive.values()}
        return next(name for n in range(1, 99) if (name := field if n == 1 else f"{field}{n}") not in names)

    def operation(self, path, operation):
        made = {}
        body = operation.get("requestBody")
        if body:
            body = self.lookup(body["$ref"]) if "$ref" in body else body
            content = body["content"].get("application/json")
            made["body"] = self.schema(content["schema"], "body")
        query = {}
        for parameter in operation.get("parameters", []):
            parameter = self.lookup(parameter["$ref"]) if "$ref" in parameter else parameter
            place = {"query": query, "path": made.setdefault("path", {})}.get(parameter["in"])
            if place is not None:
                place[parameter["name"]] = self.schema(parameter["schema"], parameter["name"])
        if not made.get("path"):
            made.pop("path", None)
        made["query"] = query
        return made


def only_described(schema):
    """Takes out of "required" what the description requires, but does not have as a field."""
    if "required" in schema:
        kept = [name for name in schema["required"] if name in schema.get("fields", {})]
        schema = {**schema, "required": kept} if kept else {key: of for key, of in schema.items() if key != "required"}
    made = dict(schema)
    for key in ("items", "values"):
        if key in made:
            made[key] = only_described(made[key])
    if "fields" in made:
        made["fields"] = {name: only_described(of) for name, of in made["fields"].items()}
    if "any" in made:
        made["any"] = [only_described(of) for of in made["any"]]
    return made


def any_of(options):
    flat = []
    for option in options:
        for one in option["any"] if list(option) == ["any"] else [option]:
            if one not in flat:
                flat.append(one)
    return flat[0] if len(flat) == 1 else {"any": flat}


def shared(table, schemas):
    """Gives schemas that occur more than once, and are not small, a name."""
    counts, fields = {}, {}

    def count(schema, field):
        if not isinstance(schema, dict):
            return
        text = json.dumps(schema, sort_keys=True)
        counts[text] = counts.get(text, 0) + 1
        fields.setdefault(text, field)
        if counts[text] > 1:
            return
        for name, of in children(schema):
            count(of, name or field)

    for operation in table.values():
        count(operation.get("body", {}), "body")
        for name, schema in operation["query"].items():
            count(schema, name)
    for name, schema in schemas.items():
        count(schema, name)
    names = {}

    def replace(schema, top=False):
        text = json.dumps(schema, sort_keys=True)
        if counts.get(text, 0) > 1 and len(text) > 90 and not top:
            if text not in names:
                field = re.sub(r"\W", "", fields[text])
                name = next(n for i in range(1, 999) if (n := field if i == 1 else f"{field}{i}") not in schemas)
                names[text] = name
                schemas[name] = None
                schemas[name] = replace(json.loads(text), top=True)
            return {"ref": names[text]}
        made = dict(schema)
        for key in ("items", "values"):
            if key in made:
                made[key] = replace(made[key])
        if "fields" in made:
            made["fields"] = {name: replace(of) for name, of in made["fields"].items()}
        if "any" in made:
            made["any"] = [replace(of) for of in made["any"]]
        return made

    for name, schema in list(schemas.items()):
        schemas[name] = replace(schema, top=True)
    for operation in table.values():
        if "body" in operation:
            operation["body"] = replace(operation["body"], top=True)
        operation["query"] = {name: replace(of) for name, of in operation["query"].items()}


def children(schema):
    for key in ("items", "values"):
        if key in schema:
            yield None, schema[key]
    for name, of in schema.get("fields", {}).items():
        yield name, of
    for of in schema.get("any", []):
        yield None, of


def in_order(value):
    return {key: in_order(of) for key, of in sorted(value.items())} if isinstance(value, dict) else (
        [in_order(of) for of in value] if isinstance(value, list) else value)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    description = json.loads(pathlib.Path(sys.argv[1]).read_text())
    extractor = Extractor(description)
    table = {}
    for path, operations in description["paths"].items():
        # As published, paths may begin with the project.
        short = re.sub(r"^(/api/v1)?(/projects/\{project\})?", "", path)
        if not any(re.fullmatch(served, short) for served in SERVED):
            continue
        for method, operation in operations.items():
            if method in ("get", "post"):
                table[f"{method.upper()} {short}"] = extractor.operation(short, operation)
    for operation in table.values():
        if "body" in operation:
            operation["body"] = only_described(operation["body"])
    extractor.schemas = {name: only_described(of) for name, of in extractor.schemas.items()}
    shared(table, extractor.schemas)
    lines = []
    for group, entries in (("operations", table), ("schemas", extractor.schemas)):
        rows = [f"  {json.dumps(name)}: {json.dumps(in_order(of), separators=(',', ':'))}" for name, of in sorted(entries.items())]
        lines.append(f'"{group}": {{\n' + ",\n".join(rows) + "\n}")
    (HERE / "limits.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
