"""Forms that are made from the catalogue: every method with its parameters, and the options of a dataset."""

import pytest

from api.dashboard import spec_form
from api.dashboard.schema_fields import choices_of, types_of, value_of
from api.dashboard.visitors import Form
from tests.api.dashboard.browsers import Browser
from tests.api.service import User

INTEGERS = {"anyOf": [{"enum": [1, 3]}, {"type": "null"}]}


def test_a_spec_with_task_transforms_and_schedules_is_what_the_form_says_and_back() -> None:
    schedule = {"start": 0.0, "end": 1.0}
    pairs = [
        ("/task", "segmentation"), ("/objectives/0/name", "pixel_kd"), ("/objectives/0/weight", '{"start": 0.0, "end": 1.0}'),
        ("/transforms/1/name", "prune"), ("/transforms/3/name", "quantise"), ("/transforms/3/bits", "2"),
    ]  # fmt: skip
    written = spec_form.spec_of(Form(pairs))
    assert written.spec == {
        "task": "segmentation", "objectives": [{"name": "pixel_kd", "weight": schedule}],
        "transforms": [{"name": "prune"}, {"name": "quantise", "bits": 2}],
    }  # fmt: skip
    assert written.place_of("/transforms/1/bits") == "/transforms/3/bits"
    assert written.place_of("/transforms/2") == "/transforms/2" and written.place_of("/task") == "/task"
    texts = spec_form.texts_of(written.spec)
    assert texts["/transforms/1/bits"] == "2" and spec_form.FURTHER not in texts
    assert spec_form.spec_of(Form(list(texts.items()))).spec == written.spec


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("3", types_of(INTEGERS), 3), ("0.5", {"number"}, 0.5), ("much", {"number"}, "much"), ("[1, 2]", {"array"}, [1, 2]),
        ("1, 2", {"array"}, [1, 2]), ("11", {"array"}, [11]), ("#ff0000, #00ff00", {"array"}, ["#ff0000", "#00ff00"]),
        ('{"a": 1}', {"number", "object"}, {"a": 1}), ("[1", {"array", "string"}, "[1"),
    ],
)  # fmt: skip
def test_texts_stand_for_values_of_their_type(text: str, types: set[str], value: object) -> None:
    assert value_of(text, types) == value


def test_an_enumeration_is_a_choice_only_if_nothing_else_is_allowed() -> None:
    assert choices_of(INTEGERS) == ("1", "3")
    assert choices_of({"anyOf": [{"enum": ["auto"]}, {"type": "number"}]}) == ()


def test_the_form_of_a_job_has_tasks_and_transforms_with_their_parameters(visitor: Browser, owner: User) -> None:
    page = visitor.get("/jobs/new").text
    assert '<option value="detection"' in page and 'name="/transforms/0/name"' in page
    fields = visitor.get("/jobs/new/fields?kind=transforms&at=/transforms/2&/transforms/2/name=quantise").text
    assert 'name="/transforms/2/bits"' in fields and "<code>lsq</code>" in fields
    given = {"/teacher": owner.teacher(), "/dataset": owner.dataset(), "/student/network": "lenet5_half"}
    given |= {"/transforms/2/name": "quantise", "/transforms/2/bits": "99"}
    answer = visitor.post("/jobs/new/validate", given).text
    assert 'data-pointer="/transforms/2/bits"' in answer
    made = visitor.post("/jobs/new", given | {"/transforms/2/bits": "2"})
    assert made.status_code == 303, made.text
    job = owner.http.get(made.headers["location"]).json()
    assert job["spec"]["transforms"] == [{"name": "quantise", "bits": 2}]
    assert 'name="/transforms/0/bits" value="2"' in visitor.get(f"/jobs/new?again={job['id']}").text


def test_a_dataset_is_sent_with_options(visitor: Browser, owner: User) -> None:
    assert 'name="/options/labels"' in visitor.get("/uploads").text
    fields = {
        "name": "rooms",
        "/options/labels": "mask",
        "/options/channels": "3",
        "/options/mask_colours": "#000000, #ff0000",
    }
    fields |= {"/options/ignored_values": "11", "/options/test_fraction": "0.5", "/options/exif": ""}
    made = visitor.post("/uploads/datasets", fields, headers={"Accept": "application/json"})
    assert made.status_code == 201, made.text
    options = owner.http.get(f"/datasets/{made.json()['id']}").json()["options"]
    assert {name: options[name] for name in ("labels", "channels", "mask_colours", "ignored_values", "test_fraction")} == {
        "labels": "mask", "channels": 3, "mask_colours": ["#000000", "#ff0000"], "ignored_values": [11], "test_fraction": 0.5,
    }  # fmt: skip
    wrong = visitor.post("/uploads/datasets", {"/options/labels": "colours"}, headers={"Accept": "application/json"})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["pointer"] == "/options/labels"


def test_a_dataset_leads_to_a_job_of_its_task(visitor: Browser, owner: User, other_user: User) -> None:
    for labels, task in (("mask", "segmentation"), ("boxes", "detection"), ("class", "")):
        identifier = owner.dataset(found={"labels": labels})
        assert f'href="/jobs/new?dataset={identifier}"' in visitor.get(f"/uploads/{identifier}").text
        page = visitor.get(f"/jobs/new?dataset={identifier}").text
        assert f'<option value="{identifier}" selected>' in page
        assert (f'<option value="{task}" selected>' in page) == bool(task)
    assert visitor.get(f"/jobs/new?dataset={other_user.dataset()}").status_code == 404


def test_a_rejected_dataset_says_why_once(visitor: Browser, owner: User) -> None:
    words = "the file is no zip archive"
    problem = {
        "code": "rejected",
        "message": words,
        "hint": "Send a zip.",
        "errors": [{"pointer": "", "message": words}],
    }
    assert visitor.get(f"/uploads/{owner.dataset('rejected', problem=problem)}").text.count(words) == 1
