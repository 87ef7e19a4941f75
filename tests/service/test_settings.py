from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.devices import Device, Tuning
from models.steps.pictures import PictureLimits
from service.keys import entry_of, write_entry
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


ENTRY = write_entry(entry_of("key", "infer"))


def test_the_environment_sets_api_keys_separated_by_commas():
    roles = "[entry.role for entry in settings.api_keys]"
    text = f" {ENTRY}, {ENTRY.replace('infer', 'admin')} ,"

    assert read_in_a_process(roles, SERVICE_API_KEYS=text) == ["infer", "admin"]


@pytest.mark.parametrize(("text", "count"), [("", 0), (" , ", 0), (ENTRY, 1), (ENTRY + ",", 1)])
def test_a_blank_is_no_api_key(text, count):
    assert len(Settings(api_keys=text).api_keys) == count


def test_a_key_in_the_place_of_its_entry_is_refused_and_not_repeated():
    with pytest.raises(ValidationError) as refusal:
        Settings(api_keys="hunter2")

    assert "hunter2" not in str(refusal.value)
    assert "new-key" in str(refusal.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_a_loopback_address_may_be_served_without_keys(host):
    assert Settings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "line-7", "127.0.0.1.org"])
def test_any_other_address_needs_keys_or_somebody_who_means_it(host):
    with pytest.raises(ValidationError, match="SERVICE_ALLOW_OPEN"):
        Settings(host=host)

    assert Settings(host=host, api_keys=ENTRY).api_keys
    assert Settings(host=host, allow_open=True).allow_open


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

    assert (settings.max_bytes, settings.max_pixels, settings.max_side_px) == astuple(limits)


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
