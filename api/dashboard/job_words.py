"""What a job distils, in words, and how to submit it elsewhere."""

import json
import shlex
from typing import Any

from api.http.links import current_base
from api.http.texts import methods
from api.jobs.overview import named, student_words
from api.jobs.schemas import JobBody


def about(key_id: str, job: JobBody) -> list[tuple[str, str, str]]:
    """What a job distils, and how: heads, words, and the page to which each leads, if there is one."""
    resolved = job.resolved
    student, teacher, dataset = resolved.get("student") or {}, resolved.get("teacher"), resolved.get("dataset")
    words = student_words(student.get("network"), student.get("like"), student.get("width"))
    found = [
        ("Task", str(resolved.get("task") or ""), ""),
        ("Teacher", named(key_id, teacher), _page_of(teacher)),
        ("Student", words, ""),
        ("Dataset", named(key_id, dataset) if dataset else "none", _page_of(dataset)),
        ("Source", str((resolved.get("source") or {}).get("name") or ""), ""),
        ("Objectives", methods(resolved.get("objectives")), ""),
        ("Transforms", methods(resolved.get("transforms")), ""),
    ]
    return [row for row in found if row[1]]


def _page_of(identifier: Any) -> str:
    """The page of a teacher, a dataset or a job; empty for anything else."""
    prefix = identifier[:4] if isinstance(identifier, str) else ""
    return f"/jobs/{identifier}" if prefix == "job_" else f"/uploads/{identifier}" if prefix in ("tch_", "dts_") else ""


def calls(job: JobBody) -> dict[str, str]:
    """The same job as a command of curl, in Python and on the command line."""
    spec = json.dumps(job.spec, indent=2, ensure_ascii=True)
    base = current_base()
    return {
        "curl": f'curl {shlex.quote(base + "/v1/jobs")} -H "Authorization: Bearer $DISTILL_KEY" \\\n'
        f"  --json {shlex.quote(spec)}",
        "Python": "import json\n\nfrom distillery_client import Client\n\n"
        f"with Client({base!r}) as client:\n    job = client.jobs.submit(json.loads({spec!r}))\n    client.jobs.wait(job['id'])",
        "command line": f"distillery --url {shlex.quote(base)} jobs submit --watch --spec - <<'END'\n{spec}\nEND",
    }
