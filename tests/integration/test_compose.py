"""Properties of docker-compose.yml, read from the file; test_walk.py runs its commands."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.composed import COMPOSE, ROOT, dockerfile, variables

ONCE = {name for name, service in COMPOSE["services"].items() if service.get("restart") == "no"}
OURS = {"api", "distill", "inspect", "migrate"}


def test_every_long_running_service_has_a_health_check():
    checked = {name for name, service in COMPOSE["services"].items() if "healthcheck" in service}
    assert {"migrate", "bucket"} == ONCE
    assert set(COMPOSE["services"]) - ONCE - checked == {"api"}
    assert "HEALTHCHECK" in dockerfile()["api"]


def test_ports_are_open_to_this_machine_only():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_our_containers_are_unprivileged_and_have_no_secret_in_a_variable():
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["secrets"] == ["settings"], name
        assert set(service.get("environment", ())) <= {"DISTILL_DEVICE"}, name
    for target in ("api", "worker"):
        assert dockerfile()[target]["USER"] == ["distillery"]


def test_the_api_image_has_no_torch():
    assert not any("worker" in line for line in dockerfile()["api"]["RUN"] + dockerfile()["api"]["COPY"])
    assert any("[worker]" in line for line in dockerfile()["worker"]["RUN"])


def test_commands_that_pip_installs_find_the_copied_packages():
    assert [variables("worker")["PYTHONPATH"]] == dockerfile()["worker"]["WORKDIR"]


def test_a_worker_has_more_time_to_stop_than_its_engine():
    from models.settings import Settings

    seconds = int(COMPOSE["services"]["distill"]["stop_grace_period"].removesuffix("s"))
    assert seconds > Settings(_env_file=None).drain_grace_seconds + 10


def test_what_a_gpu_changes():
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
    assert set(override["services"]) == {"distill"}
    assert override["services"]["distill"]["environment"] == {"DISTILL_DEVICE": "cuda"}
    assert COMPOSE["services"]["distill"]["environment"] == {"DISTILL_DEVICE": "cpu"}


@pytest.mark.parametrize("files", [["docker-compose.yml"], ["docker-compose.yml", "docker-compose.gpu.yml"]])
def test_docker_compose_accepts_the_files(files: list[str], tmp_path: Path):
    compose = next(filter(_answers, (["docker", "compose"], ["docker-compose"])), None)
    if compose is None:
        pytest.skip("needs docker compose")
    for name in ("Dockerfile", *files):
        shutil.copyfile(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, str(ROOT / "docs/deploy/make_secrets.py")], cwd=tmp_path, check=True)
    options = [option for file in files for option in ("-f", file)]
    said = subprocess.run([*compose, *options, "config"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0 and not said.stderr, said.stderr
    services = yaml.safe_load(said.stdout)["services"]
    assert set(services) == set(COMPOSE["services"])
    assert all(services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"] for name in OURS)
    assert services["distill"]["environment"] == {"DISTILL_DEVICE": "cpu" if len(files) == 1 else "cuda"}
    assert ("deploy" in services["distill"]) == (len(files) == 2)


def _answers(command: list[str]) -> bool:
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run([*command, "version"], capture_output=True).returncode
    )
