"""With thousands of rows, the frequent queries of the API and the workers use indexes on both databases.

`python -m benchmarks.service.million_jobs` checks and times the same with a million rows.
"""

import pytest

from benchmarks.service.million_jobs import ACTIONS, Scene, fill, whole_tables

ROWS = 3000


@pytest.mark.parametrize("waiting", [100, ROWS], ids=["history", "backlog"])
def test_no_query_reads_a_whole_table(migrated: str, waiting: int):
    fill(ROWS, waiting)
    scene = Scene(ROWS)
    found = {name: whole_tables(lambda action=action: action(scene)) for name, action in ACTIONS.items()}
    assert {name: statements for name, statements in found.items() if statements} == {}


def test_a_scan_of_a_whole_table_is_detected(migrated: str):
    from sqlalchemy import text

    from models.database import reading

    fill(ROWS, 100)
    with reading() as session:
        (found,) = whole_tables(lambda: session.execute(text("SELECT count(*) FROM jobs WHERE name = 'x'")).all())
    assert found.startswith("jobs: ")
