"""scripts/structure.py finds what it is there to find."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SPEC = importlib.util.spec_from_file_location("structure", ROOT / "scripts" / "structure.py")
structure = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(structure)


@pytest.fixture
def faults(tmp_path):
    def of(files: dict[str, str]) -> list[str]:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return structure.faults(tmp_path)

    return of


def test_files_that_use_each_other_one_way_are_right(faults):
    assert not faults(
        {
            "lib.rs": "pub mod cdf;",
            "cdf/mod.rs": "pub mod a;\npub mod b;\npub use a::A;",
            "cdf/a.rs": "pub struct A;\n// use super::b::B;\nconst TEXT: &str = \"crate::cdf::b::B\";",
            "cdf/b.rs": "use super::A;\npub struct B(A);",
        }
    )


@pytest.mark.parametrize(
    "back",
    [
        "use super::b::B;",
        "use crate::cdf::{b::{self, B}};",
        "use crate::cdf::b;\nfn f(_: b::B) {}",
        "fn f(_: crate::cdf::b::B) {}",
        "fn f(_: super::b::B) {}",
        # Through what the folder exports again.
        "use super::B;",
        "use crate::cdf::B as Other;",
        # An attribute for tests ends with its item.
        "#[cfg(test)]\nmod tests { fn f() { {} } }\nuse super::b::B;",
    ],
)
def test_a_circle_is_told_with_the_names_that_close_it(faults, back):
    found = faults(
        {
            "cdf/mod.rs": "pub mod a;\npub mod b;\npub use b::B;",
            "cdf/a.rs": f"{back}\npub struct A;",
            "cdf/b.rs": "use super::a::A;\npub struct B(A);",
        }
    )
    assert found[0] == "a circle of 2 files:"
    assert any("cdf/a.rs uses cdf/b.rs" in line and "B" in line for line in found)


def test_a_folder_and_its_file_may_not_use_each_other(faults):
    found = faults({"cdf/mod.rs": "mod a;\npub struct Shared;\nfn f() { a::g() }", "cdf/a.rs": "use super::Shared;"})
    assert found[0] == "a circle of 2 files:"


@pytest.mark.parametrize(
    ("inside", "circles"),
    [
        ("pub(in crate::cdf) fn f() {}", 0),
        ("mod inner { use super::Own; }", 0),
        ("macro_rules! m { ($name:ident) => { mod $name { use super::{Own, $name}; } } }", 0),
        ("mod inner { use super::super::B; }", 1),
        ("mod inner { fn f(_: super::Own) {} }\nuse super::B;", 1),
    ],
)
def test_a_module_within_a_file_is_a_part_of_it(faults, inside, circles):
    found = faults({"cdf/mod.rs": "mod a;\nuse a::f;\npub struct B;\nfn g() { f() }", "cdf/a.rs": f"pub struct Own;\n{inside}"})
    assert sum(line.startswith("a circle") for line in found) == circles


def test_what_tests_use_is_no_arrow(faults):
    assert not faults(
        {
            "cdf/mod.rs": "mod a;\nmod b;",
            "cdf/a.rs": "pub struct A;\n#[cfg(test)]\nmod tests {\n    use crate::cdf::b::B;\n}",
            "cdf/b.rs": "use super::a::A;\npub struct B(A);",
            "cdf/tests.rs": "use super::a::A;\nuse super::b::B;",
        }
    )


@pytest.mark.parametrize("line", ["use pgrx::pg_sys;", "fn f() { pgrx::log!() }", "use crate::pg::text;"])
def test_the_cdf_side_uses_nothing_of_postgresql(faults, line):
    files = {"lib.rs": "", "cdf/mod.rs": f"// pgrx\n{line}", "pg/mod.rs": "use pgrx::pg_sys;", "pg/text.rs": ""}
    assert len(faults(files)) == 1


def test_long_files_are_told_and_tests_not_counted(faults):
    line = "const A: u8 = 0;\n"
    assert not faults({"a.rs": line * 700})
    assert not faults({"a.rs": line * 700 + "#[cfg(test)]\nmod tests {\n" + line * 100 + "}\n"})
    assert len(faults({"a.rs": line * 701})) == 1


def test_a_name_of_two_types_is_told(faults):
    found = faults({"a.rs": "pub struct Name;\nimpl Name {}", "b.rs": "pub(super) enum Name { A }"})
    assert found == ["Name is 2 types: in a.rs, b.rs"]
    assert not faults({"a.rs": "pub struct Name;", "b.rs": "#[cfg(test)]\nmod tests {\nstruct Name;\n}"})


def test_shapes_are_counted_outside_of_the_registry(faults):
    match = "Shape::Raw;\n"
    assert not faults({"cdf/resource/raw.rs": match * 40, "cdf/explain.rs": match * 30})
    assert len(faults({"cdf/resource/raw.rs": match * 40, "cdf/explain.rs": match * 31})) == 1


def test_a_check_can_be_left_out(tmp_path):
    (tmp_path / "a.rs").write_text("pub struct Name;\n" + "const A: u8 = 0;\n" * 700)
    (tmp_path / "b.rs").write_text("pub struct Name;")
    assert len(structure.faults(tmp_path)) == 2
    assert structure.faults(tmp_path, ["lengths"]) == ["Name is 2 types: in a.rs, b.rs"]


def test_a_checkout_in_a_folder_called_tests_is_checked(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.rs").write_text("const A: u8 = 0;\n" * 701)
    assert len(structure.faults(tmp_path / "tests")) == 1


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [([], 1, "Name is 2 types: in a.rs, b.rs\n"), (["--without", "names"], 0, "")],
)
def test_what_is_wrong_is_printed_and_ends_the_script_with_1(tmp_path, options, code, told):
    for name in ("a.rs", "b.rs"):
        (tmp_path / name).write_text("pub struct Name;")
    command = [sys.executable, ROOT / "scripts" / "structure.py", *options, tmp_path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (code, told)
