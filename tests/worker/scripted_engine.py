"""A small engine with the real engine's protocol. The label `script` of a job, or an upload's options, control how
it behaves.

    steps, pause           number of steps, and seconds between them
    checkpoint_every       steps between checkpoints
    await_stored           it continues only when the worker has stored a checkpoint
    kill_at, kill_attempts it kills itself before this step, in these attempts (all if not given)
    kill_after             it kills itself after this number of steps of an attempt, in these attempts
    export_pause           seconds between its last step and its artifacts
    stderr                 a line for its log
    student                the description of the exported student
    print_spec             it prints the spec that it got
    deaf                   it ignores commands
    error, error_attempts  the fields of its final `error` event, in these attempts (all if not given)
    memory_bytes           it uses so much memory
    hang                   it neither makes steps nor ends
    kill                   it kills itself with this signal before it reads an upload
    times_larger           the canonical form of an upload is so many times larger than the upload

Its state is a chain of hashes, so that a test can compare the end of a resumed run with that of an uninterrupted one.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
script = json.loads(job["spec"]["labels"]["script"]) if "spec" in job else job.get("options", {})
requests: list[str] = []


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def listen() -> None:
    for line in sys.stdin:
        command = json.loads(line)["command"]
        if command != "beat" and not script.get("deaf"):
            requests.append(command)
    os._exit(5)


def write(path: str, content: bytes) -> dict[str, object]:
    Path(path).write_bytes(content)
    return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def checkpoint(step: int, state: str) -> None:
    parts = {}
    for name, content in {
        "run": json.dumps({"step": step, "state": state}).encode(),
        "frozen": b"always the same",
    }.items():
        sha256 = hashlib.sha256(content).hexdigest()
        Path("checkpoints", sha256).write_bytes(content)
        parts[name] = {"sha256": sha256, "size": len(content)}
    kept = Path("checkpoints", parts["run"]["sha256"])
    written = kept.stat().st_ctime_ns
    time.sleep(0.02 if script.get("await_stored") else 0)  # otherwise the file's timestamp may be unchanged
    say("checkpoint", manifest={"step": step, "parts": parts})
    # the worker links the file, uploads it, writes the checkpoint's row and removes its link, which all change this time
    while script.get("await_stored") and (kept.stat().st_nlink > 1 or kept.stat().st_ctime_ns == written):
        time.sleep(0.005)


def resume() -> tuple[int, str]:
    if not job["resume"]:
        return 0, "begin"
    manifest = json.loads(Path(job["resume"]).read_text())
    run = json.loads(Path("checkpoints", manifest["parts"]["run"]["sha256"]).read_text())
    assert Path("checkpoints", manifest["parts"]["frozen"]["sha256"]).read_bytes() == b"always the same"
    return run["step"], run["state"]


def distil() -> int:
    step, state = resume()
    say("started", versions={}, device="cpu", threads=1, resumed_from=step or None)
    say("phase", phase="distilling", stage="main")
    say("log", level="info", message=f"earlier attempts used {job.get('seconds_used')} seconds")
    steps, begun = script.get("steps", 10), step
    while step < steps:
        reached = step == script.get("kill_at") or step - begun == script.get("kill_after")
        if reached and job["attempt"] in script.get("kill_attempts", [job["attempt"]]):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(script.get("pause", 0.01))
        state, step = hashlib.sha256(f"{state}{step}".encode()).hexdigest(), step + 1
        say("metrics", step=step, values={"loss": 1 / step, "broken": float("inf"), "nothing": None})
        say("progress", stage="main", step=step, steps=steps, fraction=step / steps, epoch=0)
        if requests:
            if requests[-1] == "drain":
                checkpoint(step, state)
            say("stopped", reason=requests[-1])
            return 4
        if step % script.get("checkpoint_every", 10**9) == 0:
            checkpoint(step, state)
            say(
                "preview",
                name="samples.png",
                content_type="image/png",
                step=step,
                path=write("previews/samples.png", state.encode())["path"],
            )
    say("phase", phase="exporting", stage=None)
    time.sleep(script.get("export_pause", 0))
    say(
        "artifact",
        name="student.safetensors",
        content_type="application/octet-stream",
        **write("output/student", state.encode()),
    )
    say("artifact", name="report.json", content_type="application/json", **write("output/report", b"{}"))
    say("done", summary={"steps": steps}, student=script.get("student"))
    return 0


def check_each() -> None:
    for number, one in enumerate(job["checks"]):
        own = json.loads(one["spec"]["labels"]["script"])
        if "kill" in own:
            os.kill(os.getpid(), own["kill"])
        if own.get("hang"):
            time.sleep(60)
        failed = {"error": {"event": "error", **own["error"]}} if "error" in own else {"facts": {"number": number}}
        say("result", number=number, **failed)
    say("checked", facts={})


def main() -> int:
    threading.Thread(target=listen, daemon=True).start()
    if "stderr" in script:
        print(script["stderr"], file=sys.stderr, flush=True)
    if "print_environment" in script:
        say("log", level="info", message=json.dumps(dict(os.environ)))
    if "print_spec" in script:
        say("log", level="info", message=json.dumps(job["spec"]))
    if "flood" in script:
        print("x" * script["flood"], flush=True)
        print("this is not JSON\n[1, 2]\n" + "[" * 100_000, flush=True)
    if "memory_bytes" in script:
        bytearray(script["memory_bytes"])
    if script.get("hang"):
        subprocess.Popen(["sleep", "60"])
        say("log", level="info", message="hanging")
        while not requests:
            time.sleep(0.05)
        say("stopped", reason=requests[-1])
        return 4
    if "error" in script and job["attempt"] in script.get("error_attempts", [job["attempt"]]):
        say("error", **script["error"])
        return 3
    if job["kind"] == "distill":
        return distil()
    if job["kind"] == "checks":
        check_each()
        return 0
    if "kill" in script:
        os.kill(os.getpid(), script["kill"])
    if job["kind"] == "check":
        say("checked", facts={})
        return 0
    content = Path(job["upload"]).read_bytes()
    if content.startswith(b"bad"):
        say(
            "error",
            fault="user",
            code="rejected",
            message="it is bad",
            hint="send a good one",
            errors=[{"pointer": "", "message": "bad"}],
        )
        return 3
    if content.startswith(b"crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    say(
        "findings",
        findings=json.loads(content) if content.startswith(b"{") else {"size": len(content)},
        path=write("output/canonical.safetensors", script.get("times_larger", 1) * content.upper())["path"],
        samples=write("output/samples.png", b"a sheet")["path"] if b'"samples"' in content else None,
    )
    return 0


code = main()
sys.stdout.flush()
os._exit(code)
