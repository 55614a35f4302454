"""A second reader of the emulator's table of limits: makes requests that keep the limits, breaks them in one place, and says
whether a value fits. It is independent of the emulator's own reader, so that each tests the other."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path

DESCRIPTION = Path(__file__).resolve().parents[1] / "emulator" / "description"
# Names are few, so that requests meet what others have made.
NAMES = ["a", "b", "c", "d", "e", "f", "ä 日"]
SPACES = ["sp", "other"]


def merge(into, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    into = dict(into) if isinstance(into, dict) else {}
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        else:
            into[name] = merge(into.get(name), value)
    return into


class Table:
    def __init__(self):
        table = json.loads((DESCRIPTION / "limits.json").read_text())
        self.schemas, self.operations = table["schemas"], table["operations"]
        for exception in json.loads((DESCRIPTION / "exceptions.json").read_text()):
            for operation in exception["operations"]:
                for at in exception["at"]:
                    limits = self.operations[operation]
                    part, *path = at.split(".")
                    limits[part] = self._changed({"fields": limits[part]} if part == "query" else limits[part], path, exception["change"])
                    if part == "query":
                        limits[part] = limits[part]["fields"]

    def resolve(self, schema):
        while "ref" in schema:
            schema = {**self.schemas[schema["ref"]], **{key: of for key, of in schema.items() if key != "ref"}}
        return schema

    def _changed(self, schema, path, change):
        if not path:
            return merge(self.resolve(schema), change)
        schema = copy.copy(self.resolve(schema))
        if "any" in schema:
            return {**schema, "any": [self._changed(of, path, change) for of in schema["any"]]}
        step, *rest = path
        inner = {"[]": "items", "{}": "values"}.get(step)
        if inner:
            return {**schema, inner: self._changed(schema[inner], rest, change)} if inner in schema else schema
        wanted = lambda name: step == "*" or step == name or step == "?" and name not in schema.get("required", [])
        fields = {name: self._changed(of, rest, change) if wanted(name) else of for name, of in schema.get("fields", {}).items()}
        if step not in "*?" and step not in fields and path == [step]:
            fields[step] = merge({}, change)
        return {**schema, "fields": fields}

    # ---- whether a value fits ----

    def fits(self, schema, value) -> bool:
        schema = self.resolve(schema)
        if value is None:
            return schema.get("null", False) or not schema.keys() & {"type", "any", "enum"} or any(
                self.fits(of, value) for of in schema.get("any", []))
        if "any" in schema:
            return any(self.fits(of, value) for of in schema["any"])
        kind = schema.get("type")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        of_kind = {
            None: True,
            "string": isinstance(value, str),
            "integer": is_number and isinstance(value, int),
            "number": is_number,
            "boolean": isinstance(value, bool),
            "array": isinstance(value, list),
            "object": isinstance(value, dict),
        }[kind]
        if not of_kind or value not in schema.get("enum", [value]) or value in schema.get("not", []):
            return False
        within = lambda size, least, most: schema.get(least, 0) <= size <= schema.get(most, math.inf)
        if isinstance(value, str):
            pattern = schema.get("pattern")
            return within(len(value), "minLength", "maxLength") and (not pattern or re.search(pattern.replace("$", r"\Z"), value) is not None)
        if is_number:
            return schema.get("minimum", value) <= value <= schema.get("maximum", value)
        if isinstance(value, list):
            unique = len({json.dumps(element, sort_keys=True) for element in value}) == len(value)
            return (within(len(value), "minItems", "maxItems") and (unique or not schema.get("uniqueItems"))
                    and all(self.fits(schema.get("items", {}), element) for element in value))
        if isinstance(value, dict):
            fields, values = schema.get("fields", {}), schema.get("values")
            if any(value.get(name) is None for name in schema.get("required", [])):
                return False
            known = lambda name: name in fields or values is not None or kind is None
            size = sum(len(name.encode()) + (len(of.encode()) if isinstance(of, str) else 0) for name, of in value.items())
            return (within(len(value), "minProperties", "maxProperties") and size <= schema.get("totalBytes", size)
                    and all(known(name) and len(name.encode()) <= schema.get("keyBytes", math.inf) for name in value)
                    and all(self.fits(fields.get(name, values or {}), of) for name, of in value.items()))
        return True

    # ---- values that fit ----

    def value(self, schema, random, ids, field="", depth=0):
        """A value that fits; `ids`: internal ids that there may be something for."""
        schema = self.resolve(schema)
        if schema.get("null") and random.random() < 0.15:
            return None
        if "any" in schema:
            options = schema["any"]
            if depth > 8:
                # The nesting of filters has to end.
                options = [of for of in options if not {"and", "or", "not"} & self.resolve(of).get("fields", {}).keys()] or options
            return self.value(random.choice(options), random, ids, field, depth + 1)
        if "enum" in schema:
            return random.choice(schema["enum"])
        kind = schema.get("type") or ("integer" if "minimum" in schema else "string")
        if kind == "string":
            return self._text(schema, random, field)
        if kind in ("integer", "number"):
            return self._number(schema, random, ids, field, kind)
        if kind == "boolean":
            return random.random() < 0.5
        if kind == "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", 1000)
            made, seen = [], set()
            for _ in range(max(least, min(most, random.choice([0, 1, 1, 2, 3])))):
                element = self.value(schema.get("items", {}), random, ids, field, depth + 1)
                text = json.dumps(element, sort_keys=True)
                if not (schema.get("uniqueItems") and text in seen):
                    made.append(element)
                    seen.add(text)
            return made
        made = {}
        for name, of in schema.get("fields", {}).items():
            if name in schema.get("required", []) or random.random() < (0.35 if depth < 12 else 0):
                of = self.resolve(of)
                needed = {**of, "null": False} if name in schema.get("required", []) else of
                made[name] = self.value(needed, random, ids, name, depth + 1)
        if "values" in schema:
            for _ in range(max(schema.get("minProperties", 0), random.choice([0, 1, 2]))):
                made[random.choice(["k", "name", "size", "x"])] = self.value(schema["values"] or {"type": "string"}, random, ids, field, depth + 1)
        return made

    def _text(self, schema, random, field):
        if field in ("cursor",):
            return "x"
        if field == "partition":
            return f"{random.randint(1, 3)}/3"
        pattern = schema.get("pattern", "")
        if field in ("space", "db", "dbName"):
            return random.choice(SPACES)
        if field == "version":
            return random.choice(["v1", "v2"])
        if pattern and "x00" not in pattern:
            return random.choice(["Pump", "Valve", "a1"])
        if random.random() < 0.05:
            return "é" * min(schema.get("maxLength", 60), 2000)
        return random.choice(NAMES)

    def _number(self, schema, random, ids, field, kind):
        least, most = schema.get("minimum", -1000), schema.get("maximum", 2000)
        if field in ("id", "assetIds", "parentIds", "assetId", "parentId", "dataSetId", "set") and ids and random.random() < 0.8:
            chosen = random.choice(ids)
            if least <= chosen <= most:
                return chosen
        choices = [least, most, random.randint(max(least, -1000) if least > -math.inf else 0, max(min(most, 2000), least + 1) if least <= 2000 else most)]
        number = random.choice([choice for choice in choices if least <= choice <= most] or [least])
        return number + 0.5 if kind == "number" and number + 0.5 <= most and random.random() < 0.3 else number

    # ---- values that do not ----

    def places(self, schema, value, path=()):
        """Every part of a value, with its schema."""
        schema = self.resolve(schema)
        yield path, schema, value
        if "any" in schema:
            schema = next((self.resolve(of) for of in schema["any"] if self.fits(of, value)), {})
            if "any" in schema:
                yield from self.places(schema, value, path)
                return
        if isinstance(value, dict):
            for name, of in value.items():
                yield from self.places(schema.get("fields", {}).get(name, schema.get("values") or {}), of, (*path, name))
        elif isinstance(value, list):
            for at, of in enumerate(value):
                yield from self.places(schema.get("items", {}), of, (*path, at))

    def broken(self, schema, body, random):
        """The body with one part that does not fit; None if no part was found."""
        for _ in range(20):
            path, of, value = random.choice(list(self.places(schema, body)))
            options = list(self._wrong(of, value))
            if not path or not options:
                continue
            made = copy.deepcopy(body)
            place = made
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = random.choice(options)
            if not self.fits(schema, made):
                return made
        return None

    def _wrong(self, schema, value):
        yield {"no": {"such": "thing"}}
        yield None
        yield True if not isinstance(value, bool) else "true"
        if isinstance(value, str):
            yield "x" * (schema.get("maxLength", 10) + 1)
            yield ""
            yield "no/such name\x01"
            yield 7
        if isinstance(value, (int, float)):
            yield schema.get("minimum", 0) - 1
            yield schema.get("maximum", 0) + 1
            yield "7"
            yield 0.25
        if isinstance(value, list):
            yield []
            yield (value * 2)[:2000] if value else [1]
            yield (value or [1]) * (schema.get("maxItems", 10) + 1)
        if isinstance(value, dict):
            yield {}
            yield {**value, "unknown": 1}
            for name in schema.get("required", []):
                yield {key: of for key, of in value.items() if key != name}
