"""Which workers can take which jobs."""

import pytest

from models.scheduling.resources import Gpu, Machine, ResourceNeeds, any_fits

H100, T4 = Gpu("NVIDIA H100 80GB HBM3", 85.5), Gpu("Tesla T4", 16.1)


@pytest.mark.parametrize(
    ("resources", "machine", "fits"),
    [
        ({}, Machine(), True),
        ({"gpus": 1}, Machine(), True),
        ({"gpus": 1}, Machine(1, (T4,)), True),
        ({"gpus": 2}, Machine(), False),
        ({"gpus": 2}, Machine(2), True),
        ({"gpus": 2}, Machine(2, (H100, T4)), True),
        ({"gpu": "h100"}, Machine(), False),
        ({"gpu": "h100"}, Machine(8), False),
        ({"gpu": "H-100"}, Machine(1, (H100,)), True),
        ({"gpu": "tesla t4"}, Machine(1, (T4,)), True),
        ({"gpu": "h100"}, Machine(2, (T4, H100)), False),
        ({"gpu": "h100", "gpus": 2}, Machine(2, (H100, T4)), False),
        ({"gpu_memory_gb": 80}, Machine(1, (H100,)), True),
        ({"gpu_memory_gb": 80}, Machine(1, (T4,)), False),
        ({"gpu_memory_gb": 1}, Machine(), False),
    ],
)
def test_what_fits(resources: dict[str, object], machine: Machine, fits: bool) -> None:
    needs = ResourceNeeds.read(str(ResourceNeeds.of(resources)))
    assert needs == ResourceNeeds.of(resources)
    assert machine.fits(needs) is fits
    assert Machine.of(machine.about()) == machine
    assert any_fits([Machine(), machine], needs) is (fits or Machine().fits(needs))


def test_needs_are_said_in_words() -> None:
    assert ResourceNeeds().sentence == "1 device"
    assert ResourceNeeds(2, "h100", 40).sentence == "2 GPUs called 'h100' with at least 40 GB each"
    assert ResourceNeeds(1, None, 24).sentence == "1 GPU with at least 24 GB"


def test_a_row_without_word_of_devices_has_one() -> None:
    assert Machine.of(None) == Machine.of({"python": "3.11"}) == Machine()
