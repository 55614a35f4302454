#!/usr/bin/env python3
"""Measures loads through cdf_fdw against the same loads into local tables and by Cognite's Python SDK.

Called by `make bench`. It starts a cluster and the sink of its own, and writes docs/performance.md (between its markers)
and docs/performance.svg.
"""

from __future__ import annotations

import argparse
import time

import cases
import report
from rig import rig


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="counted rounds of each case (5)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these cases; writes no document")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes; writes no document")
    parser.add_argument("--huge", action="store_true", help="also 100 M points in one COPY")
    parser.add_argument("--no-write", action="store_true", help="write no document")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("--rounds must be 1 or more")
    unknown = set(chosen.only or ()) - set(cases.CASES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(cases.CASES)}")
    return chosen


def main() -> None:
    chosen = arguments()
    if chosen.list:
        print("\n".join(cases.CASES))
        return
    results = []
    with rig(rounds=chosen.rounds, quick=chosen.quick, huge=chosen.huge) as running:
        machine = report.machine(running)
        for name in chosen.only or cases.CASES:
            start = time.monotonic()
            found = cases.CASES[name](running)
            for result in found:
                print(f"{name}: {report.line(result)}  [{time.monotonic() - start:.0f} s]", flush=True)
            results += found
    text = report.tables(results, machine, chosen.rounds)
    print(f"\n{text}")
    if not (chosen.only or chosen.quick or chosen.no_write):
        report.write(text, results)


if __name__ == "__main__":
    main()
