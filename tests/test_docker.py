"""The images and the composition, checked without an engine.

compose-spec.json is the Compose Specification's own schema, unchanged
(Copyright the Compose Specification authors, Apache-2.0).
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from service.records.recording import PATIENCE_S
from service.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKERFILES = ["service.Dockerfile", "training.Dockerfile"]


@pytest.fixture
def composition() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def dockerfile(name: str) -> str:
    """The steps alone: no comments, continued lines joined."""
    text = (ROOT / "docker" / name).read_text()
    return re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))


def test_the_composition_obeys_the_compose_specification(composition):
    schema = json.loads((ROOT / "tests/compose-spec.json").read_text())

    errors = Draft202012Validator(schema).iter_errors(composition)

    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_plain_up_starts_the_service_on_a_cpu_and_nothing_else(composition):
    started = {name: s for name, s in composition["services"].items() if "profiles" not in s}

    assert list(started) == ["flawsmith"]
    assert started["flawsmith"]["build"]["target"] == "cpu"


def test_the_gpu_profile_reserves_a_device(composition):
    (service,) = profiled(composition, "gpu")

    (device,) = service["deploy"]["resources"]["reservations"]["devices"]

    assert service["build"]["target"] == "gpu"
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]


def test_the_gpu_service_is_told_to_need_its_gpu_and_listens_as_the_other_does(composition):
    (service,) = profiled(composition, "gpu")

    told = dict(service["environment"])

    assert told.pop("SERVICE_DEVICE") == "cuda"
    assert told == composition["services"]["flawsmith"]["environment"]


def test_the_training_profile_builds_the_training_image(composition):
    (service,) = profiled(composition, "training")

    assert service["build"]["dockerfile"] == "docker/training.Dockerfile"


def profiled(composition: dict[str, Any], profile: str) -> list[dict[str, Any]]:
    return [s for s in composition["services"].values() if profile in s.get("profiles", [])]


def test_every_container_is_locked_down(composition):
    for service in composition["services"].values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "build" not in service or "10001:10001" in service["user"]


def test_the_monitoring_profile_brings_the_dashboard_to_grafana(composition):
    prometheus, grafana = profiled(composition, "monitoring")

    mounted = [volume.partition(":")[0] for s in (prometheus, grafana) for volume in s["volumes"]]
    files = [ROOT / file for file in mounted if file.startswith("./")]
    scraped = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text())["scrape_configs"]
    targets = {target for s in scraped[0]["static_configs"] for target in s["targets"]}
    source = yaml.safe_load((ROOT / "docker/grafana/datasource.yml").read_text())["datasources"][0]

    assert len(files) == 4
    assert all(file.is_file() for file in files)
    assert {target.partition(":")[0] for target in targets} <= set(composition["services"])
    assert source["uid"] == "prometheus"
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {"prometheus"}


def dashboard() -> dict[str, Any]:
    return json.loads((ROOT / "docker/grafana/flawsmith.json").read_text())


def test_records_have_a_place_that_is_the_users_and_outlives_its_container(composition):
    (folder,) = re.findall(r"install -d -o 10001 -g 10001 (\S+)", dockerfile("service.Dockerfile"))
    told = (ROOT / "docs/records.md").read_text()

    assert "records" in composition["volumes"]
    for name in ("flawsmith", "flawsmith-gpu"):
        assert f"records:{folder}" in composition["services"][name]["volumes"]
    assert f"sqlite:///{folder}/records.db" in told


def test_a_container_is_killed_later_than_the_service_needs_to_stop(composition):
    needed_s = Settings().drain_s + PATIENCE_S

    for name in ("flawsmith", "flawsmith-gpu"):
        assert int(composition["services"][name]["stop_grace_period"].rstrip("s")) > needed_s


def test_no_port_is_open_to_the_network_unasked(composition):
    ports = [p for s in composition["services"].values() for p in s.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_served_openly_is_published_to_this_machine_alone(composition, monkeypatch):
    for name in ("flawsmith", "flawsmith-gpu"):
        for variable, text in composition["services"][name]["environment"].items():
            monkeypatch.setenv(variable, text)
        settings = Settings()

        assert settings.allow_open
        assert all(p.startswith("127.0.0.1:") for p in composition["services"][name]["ports"])


def test_the_image_alone_starts_with_keys_only(monkeypatch):
    steps = dockerfile("service.Dockerfile")
    for variable, text in re.findall(r"\b(SERVICE_[A-Z_]+)=(\S+)", steps):
        monkeypatch.setenv(variable, text)

    with pytest.raises(ValidationError, match="SERVICE_API_KEYS"):
        Settings()
    assert Settings(api_keys=f"infer:{64 * '0'}").api_keys


def test_an_image_is_tagged_with_the_projects_version(composition):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    ours = [s for s in composition["services"].values() if "build" in s]
    tags = {s["image"].partition(":")[2] for s in ours}

    assert tags == {version, f"{version}-gpu"}


def test_every_build_names_a_file_and_a_stage_that_exist(composition):
    for service in (s for s in composition["services"].values() if "build" in s):
        steps = (ROOT / service["build"]["dockerfile"]).read_text()
        stages = re.findall(r"^FROM \S+ AS (\S+)$", steps, re.MULTILINE)
        assert service["build"].get("target", stages[-1]) in stages


def test_every_service_variable_is_a_setting(composition):
    known = {f"{Settings.model_config['env_prefix']}{f}".upper() for f in Settings.model_fields}
    ours = [s for s in composition["services"].values() if "build" in s]
    composed = [v for s in ours for v in s.get("environment", {})]
    built = re.findall(r"\bSERVICE_[A-Z_]+\b", dockerfile("service.Dockerfile"))

    assert {"SERVICE_HOST", "SERVICE_PORT"} <= {*composed} & {*built}
    assert {*composed, *built} <= known


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_copies_is_in_the_repository_and_not_ignored(name):
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(name), re.MULTILINE)
    sources = {source.strip("/") for line in copies for source in line.split()}

    assert {"models", "pyproject.toml", "constraints.txt"} <= sources
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    assert {source for source in sources if f"!{source}" not in ignore} == set()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_a_numbered_user_who_is_not_root(name):
    users = re.findall(r"^USER (\d+):(\d+)$", dockerfile(name), re.MULTILINE)

    assert users == [("10001", "10001")]


def test_the_service_image_asks_itself_whether_it_is_ready():
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (.+)$", dockerfile("service.Dockerfile"), re.M)

    assert "/v2/health/ready" in check
    assert "urllib" in check


def test_the_service_image_holds_no_torch_and_the_training_image_no_web_framework():
    service, training = (dockerfile(name) for name in DOCKERFILES)

    assert extras(service) == {"gpu", "service", "mqtt", "records", "telemetry"}
    assert extras(training) == {"training"}
    assert "COPY training/" not in service
    assert "COPY service/" not in training


def extras(steps: str) -> set[str]:
    return {extra for some in re.findall(r'"\.\[([\w,]+)\]"', steps) for extra in some.split(",")}


def test_the_torch_of_the_training_extra_is_in_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {name: " ".join(lines) for name, lines in project["optional-dependencies"].items()}

    assert "torch" in asked["training"]
    assert "fastapi" not in asked["training"]
    assert "torch" not in asked["http"] + asked["service"] + asked["gpu"]
