"""The files that describe a student: `student.json` for programs, and a model card `README.md` for readers and model hubs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KINDS = {
    "classification": "image-classification",
    "multi_label": "image-classification",
    "embedding": "image-feature-extraction",
    "segmentation": "image-segmentation",
    "depth": "depth-estimation",
    "detection": "object-detection",
}
"""The hubs' names (`pipeline_tag`) of the tasks; other tasks have none."""
PREPROCESSING = "(pixel / 255 - mean) / std for each channel; image (batch, channels, height, width)"


def described(files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`name`, `bytes` and `sha256` of each file."""
    return [
        {"name": file["name"], "bytes": Path(file["path"]).stat().st_size, "sha256": digest(Path(file["path"]))}
        for file in files
    ]


def digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_config(student: Mapping[str, Any], report: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write `student.json`: the `student` as plain data, and versions and hashes from the report."""
    path = folder / "student.json"
    content = {
        **student,
        "task": report["spec"]["task"],
        "preprocessing": PREPROCESSING,
        "initial_weights": report["initial_weights"],
        "job": report["job"],
        "versions": report["environment"]["versions"],
        "files": report["files"],
    }
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return {"name": path.name, "path": path, "content_type": "application/json"}


def write_card(student: Mapping[str, Any], report: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write `README.md`: the header that model hubs read, and the same in words."""
    path = folder / "README.md"
    parts = [
        _header(student, report),
        f"# {_title(student, report)}",
        _opening(report),
        _use(student, report),
        _input(student),
        _metrics(report),
        _transformed(report),
        _budget(report),
        _files(report),
        _limits(report),
        "## Licence\n\nNone is stated here: choose one that the teacher's and the images' licences allow, and add `license:` to the"
        " header.",
    ]
    path.write_text("\n\n".join(part for part in parts if part) + "\n")
    return {"name": path.name, "path": path, "content_type": "text/markdown"}


def _title(student: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    return str(report["spec"].get("name") or student["network"])


def _header(student: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The header as YAML; its values are JSON, which is valid YAML."""
    kind = KINDS.get(report["spec"]["task"])
    tags = ["knowledge-distillation", "pytorch", student["network"], report["spec"]["task"]]
    lines = {"library_name": "pytorch", "tags": tags} | ({"pipeline_tag": kind} if kind else {})
    values = _measured(report, "student")
    if values:
        of = report["evaluation"]
        data = (report["spec"].get("evaluation") or {}).get("dataset") or "evaluation images"
        result = {
            "task": {"type": kind or report["spec"]["task"]},
            "dataset": {"name": data, "type": data, "split": of["split"]},
            "metrics": [{"type": name, "value": value} for name, value in values.items()],
        }
        lines["model-index"] = [{"name": _title(student, report), "results": [result]}]
    header = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items())
    return "\n".join(["---", *header, "---"])


def _measured(report: Mapping[str, Any], whose: str) -> dict[str, float]:
    """The metrics on the evaluation images that are numbers."""
    values = (report["evaluation"] or {}).get(whose) or {}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _opening(report: Mapping[str, Any]) -> str:
    student, teacher = report["student"], report["teacher"]
    text = f"A `{student['network']}` with {student['parameters']:,} parameters and {student['multiply_adds']:,} multiply-adds an image."
    if teacher:
        text += f" Its teacher is `{teacher['network']}` with {teacher['parameters']:,} parameters."
    objectives = ", ".join(f"`{one['name']}`" for one in report["spec"].get("objectives") or ())
    source = (report["spec"].get("source") or {}).get("name")
    text += f" It was trained with {objectives}." if objectives else ""
    return text + (f" The training images came from the source `{source}`." if source else "")


def _use(student: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    if not any(file["name"] == "student.py" for file in report["files"]):
        return ""
    return (
        '## How to load it\n\n```python\nfrom student import load, preprocess\nnetwork = load("student.safetensors")\n'
        f"outputs = network(preprocess(images))  # `{student['output']}`, for images of uint8 (batch, channels, height, width)\n```\n\n"
        "`python student.py IMAGE` prints the outputs for an image file."
    )


def _input(student: Mapping[str, Any]) -> str:
    contract, names = student["input"], student["class_names"]
    text = (
        f"## Input and output\n\nImages of {contract['channels']} x {contract['height']} x {contract['width']} (channels, height,"
        f" width): `(pixel / 255 - mean) / std` with mean {list(contract['mean'])} and std {list(contract['std'])}."
    )
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return (
        text + f" The output `{student['output']}` has {student['classes']} values" + (f": {shown}." if names else ".")
    )


def _metrics(report: Mapping[str, Any]) -> str:
    student, teacher = _measured(report, "student"), _measured(report, "teacher")
    if not student:
        return ""
    rows = [
        f"| {name} | {value:.4g} | {f'{teacher[name]:.4g}' if name in teacher else ''} |"
        for name, value in student.items()
    ]
    of = report["evaluation"]
    head = f"## Metrics\n\nOn {of['images']:,} images of the split `{of['split']}`:\n\n| metric | student | teacher |\n|---|---|---|\n"
    return head + "\n".join(rows)


def _transformed(report: Mapping[str, Any]) -> str:
    """What the transforms did, and how much smaller the files are than the student in float32."""
    found = report["transformed"]
    if not found:
        return ""
    lines = [f"- `{each['name']}`: {_facts(each)}" for each in found["of"]]
    smaller = ", ".join(f"`{name}` {times:.1f}" for name, times in found["times_smaller"].items())
    lines.append(f"- times smaller than the student in float32 ({found['float32_student_bytes']:,} bytes): {smaller}")
    if "onnx" in found:
        own, plain = found["onnx"]["milliseconds"], found["onnx"]["float32_milliseconds"]
        lines.append(
            f"- `student.onnx`: {own:.3g} ms for one image, {plain:.3g} ms without the transform's rounding (onnxruntime, one thread)"
        )
    return "## Transforms\n\n" + "\n".join(lines)


def _budget(report: Mapping[str, Any]) -> str:
    """What the file of a budget costs, and what it may cost."""
    found = report["budget"]
    if not found:
        return ""
    limits = found["limits"]
    rows = [f"| bytes | {found['bytes']:,} | {limits['bytes'] or '–'} |"]
    if found["milliseconds"] is not None:
        what = f"ms for {found['batch']} image(s), {found['threads']} thread(s)"
        rows.append(f"| {what} | {found['milliseconds']:.3g} | {limits['milliseconds']:g} |")
    return f"## Budget\n\n| `{found['name']}` | measured | at most |\n|---|---|---|\n" + "\n".join(rows)


def _facts(facts: Mapping[str, Any]) -> str:
    """The facts of one transform in words; values by layer as their extremes."""
    words = []
    for name, value in facts.items():
        if name == "name":
            continue
        if isinstance(value, Mapping):
            values = list(value.values())
            numbers = [each for each in values if isinstance(each, int | float)]
            shown = (
                f"{min(numbers):.4g} to {max(numbers):.4g}"
                if numbers and len(numbers) == len(values)
                else f"{len(values)} layers"
            )
        else:
            shown = f"{value:.4g}" if isinstance(value, int | float) else str(value)
        words.append(f"{name.replace('_', ' ')} {shown}")
    return "; ".join(words)


def _files(report: Mapping[str, Any]) -> str:
    measured = {file["name"]: _in_words(file) for file in report["student"]["files"]}
    rows = [f"| `{file['name']}` | {file['bytes']:,} | {measured.get(file['name'], '')} |" for file in report["files"]]
    return "## Files\n\n| file | bytes | measured |\n|---|---|---|\n" + "\n".join(rows)


def _in_words(file: Mapping[str, Any]) -> str:
    """What was measured of a file when it was read again."""
    words = [f"opset {file['opset']}"] if "opset" in file else []
    if "max_relative_difference" in file:
        words.append(f"outputs differ by at most {file['max_relative_difference']:.2g} of the largest")
    if "relative_difference" in file:
        words.append(f"in integers, outputs differ by {file['relative_difference']:.2g} (L2)")
    if "bits_per_weight" in file:
        words.append(f"{file['bits_per_weight']:.3g} bits a weight")
    if "agreement" in file:
        words.append(f"same class for {file['agreement']:.1%} of {file['images']} images")
    return ", ".join(words)


def _limits(report: Mapping[str, Any]) -> str:
    return "## Limits\n\n" + "\n".join(f"- {note}" for note in report["notes"]) if report["notes"] else ""
