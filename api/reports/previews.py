"""What the previews of a job show, for its page and its report."""

from api.jobs.schemas import PreviewBody

ROWS = "In each row: the image, the truth, the student's answer, the teacher's if it reads images"
SHOWN = {
    "class-means": "The mean image of each class",
    "examples": ROWS,
    "first-filters": "Filters of the first layer: teacher on the left, student on the right",
    "worst": f"The images, of at most 64, on which the student is worst. {ROWS}",
}
"""Explanations by name; images of a source need none."""


def name_of(preview: PreviewBody) -> str:
    """The name that previews of the same kind share at all steps: `examples` for `examples-00000100.png`."""
    return preview.name.rpartition(".")[0].removesuffix(f"-{preview.step:08d}")
