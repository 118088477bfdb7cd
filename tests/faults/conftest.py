"""Servers that break on order, and the record of what was done to them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from faulty import QUICK, SPOKEN, attempt, faulty_copy
from record import Record, page_with_table

from runtime.supervisor.launch import ServerProcess

SAVE = os.environ.get("FAULTS_SAVE")  # where `make faults` wants the record; with it the long tests run too
PAGE = os.environ.get("FAULTS_PAGE")  # whose table is made of the record when all tests have passed
_record = Record()


def pytest_collection_modifyitems(config, items):
    if SAVE:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


def pytest_sessionfinish(session, exitstatus):
    if SAVE and _record.rows:
        line = _record.save(Path(SAVE), int(exitstatus))
        if PAGE and exitstatus == 0:
            rows = json.loads(Path(SAVE).read_text("utf-8"))["rows"]
            Path(PAGE).write_text(page_with_table(Path(PAGE).read_text("utf-8"), rows), "utf-8")
        print("\n" + json.dumps(line))


@pytest.fixture
def record():
    return _record


@pytest.fixture(scope="session")
def faulty(triton, built, tmp_path_factory):
    """A server whose models break on order, shared by tests that leave it alive."""
    out = faulty_copy(built, tmp_path_factory.mktemp("faulty") / "cpu", stage_timeout_s=10.0)
    with ServerProcess(out, options=QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def baseline(faulty):
    """An undisturbed answer."""
    return attempt(faulty.url, **SPOKEN).answer
