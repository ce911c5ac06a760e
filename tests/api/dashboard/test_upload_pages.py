"""The page of a dataset: some of its images, and how many each class has."""

from tests.api.dashboard.browsers import Browser, visitor_of
from tests.api.dashboard.test_pages import PIXEL
from tests.api.service import Service, User, problem

FOUND = {
    "class_names": ["cat", "dog"],
    "per_class": {"train": [7, 3], "test": [1, 0]},
    "samples": {"rows": [0, 1], "columns": 8},
}


def dataset(user: User, **found: object) -> str:
    identifier = user.dataset(found=FOUND | found, blob_key="blobs/dts_1/ins_1-1.safetensors", blob_size=1)
    user.service.storage.put("blobs/dts_1/ins_1-1.png", PIXEL)
    return identifier


def test_a_dataset_shows_images_and_counts_by_class(visitor: Browser, owner: User) -> None:
    identifier = dataset(owner)
    page = visitor.get(f"/uploads/{identifier}").text
    assert f'src="/uploads/{identifier}/samples.png"' in page and "<bdi>cat</bdi>, <bdi>dog</bdi>" in page
    assert 'aria-label="cat: 7 images"' in page and "per_class" not in page
    for picture in (
        visitor.get(f"/uploads/{identifier}/samples.png"),
        owner.http.get(f"/datasets/{identifier}/samples.png"),
    ):
        assert picture.content == PIXEL and picture.headers["content-type"] == "image/png"
    assert visitor.get(f"/uploads/{identifier}/samples.png").headers["content-security-policy"].startswith("sandbox")


def test_a_dataset_of_an_earlier_version_has_no_images(visitor: Browser, owner: User) -> None:
    identifier = owner.dataset()
    assert "samples.png" not in visitor.get(f"/uploads/{identifier}").text
    problem(owner.http.get(f"/datasets/{identifier}/samples.png"), 404)
    assert visitor.get(f"/uploads/{owner.teacher()}/samples.png").status_code == 404


def test_the_images_of_another_key_are_not_there_and_end_with_the_dataset(
    visitor: Browser, owner: User, embedded: Service
) -> None:
    with embedded.user() as other:
        identifier = dataset(other)
        assert visitor.get(f"/uploads/{identifier}/samples.png").status_code == 404
        problem(owner.http.get(f"/datasets/{identifier}/samples.png"), 404)
        assert other.http.delete(f"/datasets/{identifier}").status_code == 204
    assert embedded.storage.size("blobs/dts_1/ins_1-1.png") is None


def test_a_page_sends_ranges_and_asks_how_much_has_arrived(visitor: Browser, owner: User) -> None:
    token = {"X-Form-Token": visitor.token, "Accept": "application/json"}
    made = visitor.http.post("/uploads/datasets", data={"name": "in parts"}, headers=token).json()
    assert (made["status"], made["bytes"]) == ("waiting", 0)

    def send(first: int, data: bytes) -> dict[str, object]:
        headers = token | {"Content-Range": f"bytes {first}-{first + len(data) - 1}/6"}
        answer = visitor.http.put(made["content"], content=data, headers=headers)
        return {"code": answer.status_code} | answer.json()

    assert send(0, b"abc") == {"code": 202, "status": "waiting", "bytes": 3}
    assert visitor.get(made["received"]).json() == {"status": "waiting", "bytes": 3}
    assert send(4, b"ef")["code"] == 409
    assert send(3, b"def") == {"code": 202, "status": "inspecting", "bytes": 6}
    with owner.service.user(scopes=["uploads:read", "uploads:write"]) as other:
        assert visitor_of(other).get(made["received"]).status_code == 404


def test_what_matters_of_a_teacher_comes_first_and_nothing_twice(visitor: Browser, owner: User) -> None:
    recognised = {"accuracy": 0.9829, "images": 2048, "split": "test"}
    found = {
        "taps": {"conv1": [6, 28, 28]},
        "proposals": [],
        "parameters": 61706,
        "network": "lenet5",
        "warnings": ["other `names`"],
    }
    page = visitor.get(f"/uploads/{owner.teacher(found=found | {'recognised': recognised})}").text
    part = page.partition("What the inspection found")[2]
    assert "right on 98.3 % of 2,048 images" in part and '<p class="warned">other <code>names</code></p>' in part
    assert part.index("parameters") < part.index("taps")
    assert "proposals" not in part and "lenet5" not in part
