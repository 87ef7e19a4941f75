from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.devices import Device, Tuning
from models.steps.pictures import PictureLimits
from service.settings import Settings


def read_in_a_process(expression: str, **environment: str) -> object:
    """What an expression over `settings` gives in a process with that environment."""
    code = f"from service.settings import Settings; settings = Settings(); print({expression})"
    return ast.literal_eval(
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ".", **environment},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )


def test_every_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())


def test_the_environment_sets_the_port():
    assert read_in_a_process("settings.port", SERVICE_PORT="8080") == 8080


@pytest.mark.parametrize(
    "wrong", [{"port": 70000}, {"workers": 0}, {"timeout_s": 0}, {"device": "tpu"}]
)
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.parametrize("wrong", ["", "-1", "0,0", "first"])
def test_device_ids_that_name_no_devices_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(device_ids=wrong)


def test_a_device_is_made_of_its_settings():
    settings = Settings(
        device="tensorrt",
        device_ids="0, 2",
        threads=3,
        cuda_conv_search="EXHAUSTIVE",
        cuda_arena_strategy="kNextPowerOfTwo",
        cuda_memory_bytes=1000,
        engine_cache="engines",
        openvino_target="GPU",
    )

    devices = [settings.device_at(index) for index in settings.device_ids]

    tuning = Tuning("EXHAUSTIVE", "kNextPowerOfTwo", 1000, Path("engines"), "GPU")
    assert devices == [Device("tensorrt", 3, index, tuning) for index in (0, 2)]


def test_an_accelerator_works_as_the_seam_says_unless_told_otherwise():
    assert Settings(threads=0).device_at(0) == Device()


def test_a_deployment_takes_what_the_decoder_takes_unless_told_otherwise():
    settings, limits = Settings(), PictureLimits()

    taken = {name: getattr(settings, name) for name in asdict(limits)}
    assert taken == asdict(limits)


def test_the_readers_list_has_every_setting_with_its_number():
    text = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    rows = dict(re.findall(r"^\| `SERVICE_(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    fields = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    numbers = {name: default for name, default in fields.items() if type(default) in (int, float)}

    assert rows.keys() == fields.keys()
    assert {name: float(rows[name].strip("`")) for name in numbers} == numbers


def test_settings_do_not_change():
    settings = Settings()

    with pytest.raises(ValidationError):
        settings.port = 1
