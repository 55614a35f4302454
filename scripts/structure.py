#!/usr/bin/env python3
"""Checks the structure of src, on which a newcomer relies to find things.

- No two files use each other, directly or through others: arrows between files point one way.
- src/cdf uses nothing of src/pg, of pgrx or of pg_sys.
- No file is longer than 700 lines, tests not counted.
- The name of a type is unique among the structs, enums and traits of src.
- src/cdf/resource declares what resources are; elsewhere at most 30 places ask for a resource's shape.

    scripts/structure.py [--without CHECK]... [DIRECTORY OF src]

Prints what is wrong and ends with 1, or says nothing and ends with 0. The checks are called circles, worlds, lengths, names
and shapes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

LONGEST = 700
MOST_SHAPES = 30

# Files that hold nothing but tests.
TEST_FILES = {"tests.rs", "testing.rs", "fuzz.rs"}


class Source:
    """One file: its module's path, and its text without comments, literals and tests."""

    def __init__(self, root: Path, file: Path) -> None:
        self.file = file.relative_to(root)
        parts = list(self.file.with_suffix("").parts)
        if parts[-1] in ("mod", "lib"):
            parts.pop()
        self.module = ("crate", *parts)
        text = without_tests(without_comments(file.read_text()))
        # The visibility of an item is no use of the module that it names.
        self.text = as_one_module(re.sub(r"\bpub\(in [^)]*\)", "pub", text))


def without_comments(text: str) -> str:
    """Rust without comments and quoted text; lines keep their numbers."""
    token = re.compile(
        r"""//[^\n]*|/\*.*?\*/|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]{1,8}?|[^'\\\n])'""",
        re.DOTALL,
    )

    def blank(match: re.Match[str]) -> str:
        found = match.group(0)
        lines = "\n" * found.count("\n")
        return lines if found.startswith("/") else f'""{lines}'

    return token.sub(blank, text)


def without_tests(text: str) -> str:
    """The text without the items that are compiled for tests only."""
    kept, at = [], 0
    for attribute in re.finditer(r"#\[cfg\(test\)\]", text):
        if attribute.start() < at:
            continue
        kept.append(text[at : attribute.start()])
        at = end_of_item(text, attribute.end())
    kept.append(text[at:])
    return "".join(kept)


def as_one_module(text: str) -> str:
    """The text with `super` resolved in modules inside the file, where it means the file."""
    for module in re.finditer(r"\bmod \$?\w+ \{", text):
        end = end_of_item(text, module.start())
        inside = re.sub(r"(?<![\w:])super::(super)?", lambda path: path[1] or "self::", text[module.start() : end])
        text = text[: module.start()] + inside.ljust(end - module.start()) + text[end:]
    return text


def end_of_item(text: str, start: int) -> int:
    """Where the item that begins here ends: at its semicolon, or at its last brace."""
    depth = 0
    for at in range(start, len(text)):
        character = text[at]
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return at + 1
        elif character == ";" and depth == 0:
            return at + 1
    return len(text)


def used_paths(text: str) -> list[tuple[bool, tuple[str, ...]]]:
    """The paths of all `use` declarations, and whether they are exported again."""
    found = []
    for match in re.finditer(r"(pub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);", text):
        for path in branches(re.sub(r"\s+", " ", match.group(2)).strip()):
            path = re.sub(r"\s+as\s+\w+$", "", path.strip())
            found.append((bool(match.group(1)), tuple(part.strip() for part in path.split("::"))))
    return found


def branches(tree: str) -> list[str]:
    """`a::{b, c::{d}}` as `a::b` and `a::c::d`."""
    match = re.match(r"^(.*?)\{(.*)\}$", tree)
    if not match:
        return [tree]
    parts, depth, start = [], 0, 0
    inside = match.group(2)
    for at, character in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(inside[start:at])
            start = at + 1
    parts.append(inside[start:])
    return [match.group(1) + below for part in parts if part.strip() for below in branches(part.strip())]


class Modules:
    """Resolves paths to files, as seen from other files."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = {source.module: source for source in sources}
        # (module, name) -> the module that the name is exported from.
        self.exported: dict[tuple[tuple[str, ...], str], tuple[str, ...]] = {}
        for source in sources:
            for public, path in used_paths(source.text):
                target = self.named(source.module, path)
                if public and target and target != source.module:
                    self.exported[source.module, path[-1]] = target

    def named(self, module: tuple[str, ...], path: tuple[str, ...]) -> tuple[str, ...] | None:
        """The longest part of a path that is a module."""
        here, rest = list(module), list(path)
        if rest[0] == "crate":
            here, rest = ["crate"], rest[1:]
        elif rest[0] == "self":
            rest = rest[1:]
        elif rest[0] == "super":
            while rest and rest[0] == "super":
                here, rest = here[:-1], rest[1:]
        elif (*here, rest[0]) not in self.sources:
            return None
        whole = (*here, *rest)
        while whole and whole not in self.sources:
            whole = whole[:-1]
        return whole or None

    def defined(self, module: tuple[str, ...], path: tuple[str, ...]) -> tuple[str, ...] | None:
        """The module that defines what a path names; re-exports are followed."""
        target = self.named(module, path)
        seen = set()
        while target and target not in seen:
            seen.add(target)
            further = next((self.exported[target, name] for name in path if (target, name) in self.exported), None)
            if further is None:
                break
            target = further
        return target

    def uses(self, source: Source) -> dict[tuple[str, ...], set[str]]:
        """The other modules that a file uses, each with the names that it uses."""
        found: dict[tuple[str, ...], set[str]] = defaultdict(set)
        imported: dict[str, tuple[str, ...]] = {
            module[-1]: module for module in self.sources if module[:-1] == source.module
        }

        def note(path: tuple[str, ...]) -> None:
            target = self.defined(source.module, path)
            if target and target != source.module:
                found[target].add("::".join(path))

        for _, path in used_paths(source.text):
            module = self.named(source.module, path)
            if module and module[-1] == path[-1]:
                # A module as such does not count, only the names that are used from it.
                imported[path[-1]] = module
            else:
                note(path)
        body = re.sub(r"\buse\s+[^;]+;", "", source.text)
        for match in re.finditer(r"(?<![\w:])\w+(?:::\w+)+", body):
            path = tuple(match.group(0).split("::"))
            if path[0] in ("crate", "self", "super"):
                note(path)
            elif path[0] in imported:
                note((*absolute(imported[path[0]]), *path[1:]))
        return found


def absolute(module: tuple[str, ...]) -> tuple[str, ...]:
    return module if module[0] == "crate" else ("crate", *module)


def circles(uses: dict[tuple[str, ...], dict[tuple[str, ...], set[str]]]) -> list[list[tuple[str, ...]]]:
    """The groups of files that use each other (Tarjan's strongly connected components)."""
    index: dict = {}
    low: dict = {}
    stack: list = []
    groups: list = []

    def visit(node: tuple[str, ...]) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in uses[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in uses:
        if node not in index:
            visit(node)
    return groups


def check_circles(sources: list[Source]) -> list[str]:
    modules = Modules(sources)
    uses = {source.module: modules.uses(source) for source in sources}
    told = []
    for group in circles(uses):
        told.append(f"a circle of {len(group)} files:")
        for module in group:
            for other in sorted(set(group) & set(uses[module])):
                names = ", ".join(sorted(uses[module][other]))
                told.append(f"    {modules.sources[module].file} uses {modules.sources[other].file}: {names}")
    return told


def check_worlds(sources: list[Source]) -> list[str]:
    word = re.compile(r"\b(pgrx|pg_sys)\b|\bcrate::pg\b")
    return [
        f"{source.file} uses {match.group(0)}: src/cdf calls nothing of PostgreSQL"
        for source in sources
        if source.file.parts[0] == "cdf" and (match := word.search(source.text))
    ]


def check_lengths(sources: list[Source]) -> list[str]:
    lengths = ((source.file, len(source.text.rstrip().split("\n"))) for source in sources)
    return [f"{file} has {lines} lines without its tests; {LONGEST} are the most" for file, lines in lengths if lines > LONGEST]


def check_names(sources: list[Source]) -> list[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for match in re.finditer(r"^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union) (\w+)", source.text, re.MULTILINE):
            places[match.group(1)].append(str(source.file))
    return [f"{name} is {len(files)} types: in {', '.join(files)}" for name, files in sorted(places.items()) if len(files) > 1]


def check_shapes(sources: list[Source]) -> list[str]:
    counts = {
        str(source.file): len(re.findall(r"\bShape::", source.text))
        for source in sources
        if source.file.parts[:2] != ("cdf", "resource")
    }
    total = sum(counts.values())
    if total <= MOST_SHAPES:
        return []
    files = ", ".join(f"{file} {count}" for file, count in sorted(counts.items()) if count)
    return [f"{total} places ask for the shape of a resource; {MOST_SHAPES} are the most: {files}"]


CHECKS = {
    "circles": check_circles,
    "worlds": check_worlds,
    "lengths": check_lengths,
    "names": check_names,
    "shapes": check_shapes,
}


def faults(root: Path, without: Collection[str] = ()) -> list[str]:
    """The faults of the sources below a directory."""
    files = sorted(file for file in root.rglob("*.rs") if not holds_tests(file.relative_to(root)))
    sources = [Source(root, file) for file in files]
    return [fault for name, check in CHECKS.items() if name not in without for fault in check(sources)]


def holds_tests(file: Path) -> bool:
    return file.name in TEST_FILES or "tests" in file.parts


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks the structure of src.")
    parser.add_argument("--without", action="append", default=[], choices=CHECKS, help="a check that is left out")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent / "src")
    arguments = parser.parse_args()
    found = faults(arguments.root, arguments.without)
    if found:
        print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
