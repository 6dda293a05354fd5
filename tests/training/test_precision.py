"""Which number format: what the device is made for, if it shows there that it is right."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rvc_core.errors import ResourceError
from rvc_core.training import precision
from rvc_core.training.precision import choose_precision, compare, native_precision
from rvc_core.training.step import Networks
from rvc_core.workspace.dataset import ClipTensors
from tiny import TINY

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "bf16", "expected"),
    [
        ((7, 5), False, "fp16"),
        ((8, 0), True, "bf16"),
        ((9, 0), True, "bf16"),
        ((12, 0), True, "bf16"),
        ((7, 0), False, "fp16"),
        ((6, 0), False, "fp32"),
        ((6, 1), False, "fp32"),
    ],
)
def test_a_card_has_the_format_that_it_is_made_for(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool, expected: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return bf16 or including_emulation  # torch says yes on a T4 unless asked not to

    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.enable_grad())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert native_precision(torch.device("cuda:0")).name == expected


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks.fresh(TINY, seed=1, device=CPU)


@pytest.fixture(scope="module")
def clip() -> ClipTensors:
    random = torch.Generator().manual_seed(0)
    return ClipTensors(
        torch.randn(60, 8, generator=random),
        torch.full((60,), 60),
        torch.full((60,), 150.0),
        torch.rand(513, 60, generator=random),
        0.1 * torch.randn(60 * 160, generator=random),
        0,
    )


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_format_that_is_right_is_used_and_nothing_is_moved(networks: Networks, clip: ClipTensors, name: str) -> None:
    before = [weight.clone() for weight in networks.generator.parameters()]
    chosen = choose_precision(name, networks, clip)
    assert chosen.name == name and "cosine" in chosen.reason
    assert networks.dtype is torch.float32 and not networks.scaler.is_enabled()
    for old, weight in zip(before, networks.generator.parameters(), strict=True):
        assert torch.equal(old, weight) and weight.grad is None


@pytest.mark.parametrize("broken", ["silence", "gradients", "numbers"])
def test_a_format_that_is_wrong_is_refused(
    networks: Networks, clip: ClipTensors, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that speaks silence, one whose gradients are noise, and one that gives no numbers."""

    class Card(torch.autograd.Function):
        @staticmethod
        def forward(context: SimpleNamespace, x: torch.Tensor) -> torch.Tensor:
            return {"silence": 0 * x, "gradients": x.clone(), "numbers": x * torch.nan}[broken]

        @staticmethod
        def backward(context: SimpleNamespace, gradient: torch.Tensor) -> torch.Tensor:
            return torch.randn_like(gradient) * gradient.std()

    real = type(networks.generator.dec).forward

    def forward(self: torch.nn.Module, *arguments: object) -> torch.Tensor:
        audio = real(self, *arguments)
        return Card.apply(audio) if torch.is_autocast_enabled("cpu") else audio

    monkeypatch.setattr(type(networks.generator.dec), "forward", forward)
    monkeypatch.setattr(precision, "native_precision", lambda device: precision.Precision("bf16", "made for it"))
    chosen = choose_precision("auto", networks, clip)
    assert chosen.name == "fp32"
    assert all(f"{name} is wrong on this device: mel" in chosen.reason for name in ("bf16", "fp16"))
    with pytest.raises(ResourceError, match="bf16 is wrong") as caught:
        choose_precision("bf16", networks, clip)
    assert "fp32" in caught.value.hint


def test_a_card_whose_bfloat16_is_wrong_uses_float16(
    networks: Networks, clip: ClipTensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = precision.compare

    def wrong_in_bfloat16(dtype: torch.dtype, *arguments: Any, **options: Any) -> precision.Difference:
        found = real(dtype, *arguments, **options)
        return found._replace(cosine=0.1) if dtype is torch.bfloat16 else found

    monkeypatch.setattr(precision, "compare", wrong_in_bfloat16)
    monkeypatch.setattr(precision, "native_precision", lambda device: precision.Precision("bf16", "made for it"))
    chosen = choose_precision("auto", networks, clip)
    assert chosen.name == "fp16" and "bf16 is wrong on this device" in chosen.reason


def test_float32_beside_itself_has_no_difference(networks: Networks, clip: ClipTensors) -> None:
    nepers, cosine, length = compare(torch.float32, networks, clip)
    assert nepers == 0 and cosine == pytest.approx(1) and length == pytest.approx(1)
