"""Random writes of the same rows in a transaction: what arrives is what the statements mean one after another."""

from __future__ import annotations

import pytest
from random_writes import all_kinds, instances, run, transactions


@pytest.mark.timeout(120 + transactions())
def test_random_merges(session, scratch, api, cdf):
    kinds = [*all_kinds(scratch), *instances(scratch, api)]
    run(session, cdf, kinds, transactions())
