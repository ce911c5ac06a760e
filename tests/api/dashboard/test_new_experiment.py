"""The form that compares methods."""

from urllib.parse import urlencode

import pytest

from api.dashboard.new_experiment import CHOSEN, METHODS
from tests.api.dashboard.browsers import Browser
from tests.api.service import User

FORM = {"content-type": "application/x-www-form-urlencoded"}


def compare(visitor: Browser, methods: list[str], **fields: str):  # type: ignore[no-untyped-def]
    pairs = [("form_token", visitor.token), *fields.items(), *(("method", one) for one in methods)]
    return visitor.http.post("/experiments/new/methods", content=urlencode(pairs), headers=FORM)


def test_every_method_is_compared_with_every_seed(visitor: Browser, owner: User) -> None:
    page = visitor.get("/experiments/new").text
    assert all(f'value="{name}" checked' in page for name in CHOSEN)
    fields = {"name": "which", "teacher": owner.teacher(), "dataset": owner.dataset(), "network": "lenet5_half", "epochs": "2", "seeds": "2"}  # fmt: skip
    made = compare(visitor, list(METHODS), **fields)
    assert made.status_code == 303, made.text
    experiment = owner.http.get(made.headers["location"]).json()
    assert {one["name"]: len(one["jobs"]) for one in experiment["variants"]} == dict.fromkeys(METHODS, 2)
    job = owner.http.get(f"/jobs/{experiment['variants'][1]['jobs'][0]['id']}").json()
    assert job["spec"]["objectives"] == METHODS["KD"][1] and job["spec"]["training"]["epochs"] == 2


def test_a_student_like_its_teacher(visitor: Browser, owner: User) -> None:
    made = compare(
        visitor, ["KD"], teacher=owner.teacher(), dataset=owner.dataset(), network="like", width="0.25", seeds="1"
    )
    assert owner.http.get(made.headers["location"]).json()["spec"]["base"]["student"] == {
        "like": "teacher",
        "width": 0.25,
    }


@pytest.mark.parametrize(
    ("methods", "fields", "pointer"),
    [
        ([], {}, "/grid/objectives"),
        (["KD"], {"epochs": "many"}, "/base/training/epochs"),
        (["KD"], {"network": "like", "width": "7"}, "/base/student/width"),
    ],
)
def test_problems_keep_what_was_written(
    visitor: Browser, owner: User, methods: list[str], fields: dict[str, str], pointer: str
) -> None:
    given = {"name": "kept", "teacher": owner.teacher(), "dataset": owner.dataset(), "network": "lenet5_half"} | fields
    refused = compare(visitor, methods, **given)
    assert refused.status_code == 422 and f'data-pointer="{pointer}"' in refused.text
    assert 'value="kept"' in refused.text and f'value="{given["teacher"]}" selected' in refused.text
