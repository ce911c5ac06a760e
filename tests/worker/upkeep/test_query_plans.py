"""With thousands of rows, databases find by their indexes what the API and the workers ask for all the time.

`python -m benchmarks.service.million_jobs` shows and times the same with a million.
"""

import pytest

from benchmarks.service.million_jobs import ACTIONS, Scene, fill, whole_tables

ROWS = 3000


@pytest.mark.parametrize("waiting", [100, ROWS], ids=["history", "backlog"])
def test_nothing_reads_a_whole_table(migrated: str, waiting: int):
    fill(ROWS, waiting)
    scene = Scene(ROWS)
    found = {name: whole_tables(lambda action=action: action(scene)) for name, action in ACTIONS.items()}
    assert {name: statements for name, statements in found.items() if statements} == {}


def test_a_whole_table_is_noticed(migrated: str):
    from sqlalchemy import text

    from models.database import reading

    fill(ROWS, 100)
    with reading() as session:
        (found,) = whole_tables(lambda: session.execute(text("SELECT count(*) FROM jobs WHERE name = 'x'")).all())
    assert found.startswith("jobs: ")
