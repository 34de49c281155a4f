"""The GPUs of this machine, and what is said of one that is not there."""

from __future__ import annotations

import pytest

from visaged.models.errors import ProviderError
from visaged.models.nvidia.driver import (
    Device,
    check_devices,
    devices,
    driver_version,
    nvidia_driver_present,
    share_context,
)

TWO = (Device(0, "NVIDIA L4", (8, 9)), Device(1, "NVIDIA A2", (8, 6)))


def test_without_a_driver_there_are_no_gpus() -> None:
    if nvidia_driver_present():
        pytest.skip("this machine has an NVIDIA driver")
    assert devices() == ()
    assert driver_version() == ""
    share_context(0)


def test_gpus_that_are_there_may_be_named() -> None:
    check_devices([1, 0], TWO)


@pytest.mark.parametrize(
    ("wanted", "there", "said"),
    [
        ([0, 2], TWO, r"names GPU 2, but 2 can be used here: 0 \(NVIDIA L4\), 1 \(NVIDIA A2\)"),
        ([3, 4], TWO, "names GPU 3 and 4"),
        ([0], (), "names GPU 0, but 0 can be used here: none; CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_is_not_there_is_named_with_those_that_are(
    wanted: list[int], there: tuple[Device, ...], said: str
) -> None:
    with pytest.raises(ProviderError, match=said):
        check_devices(wanted, there)
