"""The cost of waiting threads: training steps with OpenMP threads that spin or sleep, alone and next to a busy process.

    python -m benchmarks.service.threads

LeNet-5, batch 128, as many threads as cores. The variants run in turn, several times. Prints medians and their ratio, and
writes them to `results/threads.json`.
"""

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack

from benchmarks.mnist import digits

ROUNDS, STEPS = 5, 40
POLICIES = ("ACTIVE", "PASSIVE")
TRAIN = f"""
import time, torch
from benchmarks.mnist.digits import INPUT
from worker.distillation import networks
from worker.distillation.job import read_contract
network = networks.build("lenet5", 10, read_contract(INPUT), {{}})
optimizer = torch.optim.SGD(network.parameters(), 0.01)
image, label = torch.randn(128, 1, 32, 32), torch.randint(0, 10, (128,))
for step in range({STEPS} + 3):
    if step == 3:
        began = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(image), label).backward()
    optimizer.step()
print((time.perf_counter() - began) / {STEPS} * 1000)
"""


def main() -> int:
    results = {name: measure(busy) for name, busy in (("alone", False), ("next to a busy process", True))}
    for name, row in results.items():
        print(f"{name}: {row}")
    digits.RESULTS.mkdir(exist_ok=True)
    (digits.RESULTS / "threads.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


def measure(busy: bool) -> dict[str, float]:
    """Median milliseconds per step by policy, and the ratio of spinning to sleeping."""
    times: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    with ExitStack() as stack:
        if busy:
            spinner = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(spinner.kill)
        for _ in range(ROUNDS):
            for policy in POLICIES:
                times[policy].append(_milliseconds(policy))
    medians = {policy: round(statistics.median(values), 1) for policy, values in times.items()}
    return {**medians, "ratio": round(medians["ACTIVE"] / medians["PASSIVE"], 2)}


def _milliseconds(policy: str) -> float:
    environment = os.environ | {"OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
