"""Graph modules of torch.fx and torch.export are compressed like the module; what is no Python is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import compressor
from compressor.errors import UnsupportedModelError, UsageError
from compressor.graph.programs import opened


class Attends(nn.Module):
    """Views, splits, heads, norms: whatever an exported graph writes out as numbers."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.stem, self.grouped = nn.Linear(8, width), nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.group_norm = nn.LayerNorm(width), nn.GroupNorm(4, width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).split(c, dim=-1)
        q, k, v = (t.view(b, n, self.heads, c // self.heads).transpose(1, 2) for t in (q, k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + self.out(y)
        x = x + self.group_norm(self.grouped(x.transpose(1, 2))).transpose(1, 2)
        return self.head(x.mean(1))


class Convolves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.b, self.c = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(torch.relu(self.norm(self.a(x)))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


CASES: dict[str, tuple[type[nn.Module], Tensor]] = {
    "attends": (Attends, torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))),
    "convolves": (Convolves, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))),
}


def program(form: str, model: nn.Module, x: Tensor) -> Any:
    if form == "fx":
        return fx.symbolic_trace(model)
    dynamic = ({0: torch.export.Dim("batch")},) if form == "any batch" else None
    exported = torch.export.export(model, (x,), dynamic_shapes=dynamic)
    return exported if form == "program" else exported.module()


@pytest.mark.parametrize("form", ["fx", "program", "module", "any batch"])
@pytest.mark.parametrize("case", CASES)
def test_programs_shrink_as_the_module_does(case: str, form: str, tmp_path: Path) -> None:
    make, x = CASES[case]
    torch.manual_seed(0)
    model = make().eval()
    given = program(form, model, x)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain, found = (compressor.compress(m, x, {"flops": "40%"}, search="oneshot") for m in (model, given))
    costs = [next(c for c in r.report.costs if c.name == "flops") for r in (plain, found)]
    # A program of one batch size is what it is at that size.
    assert costs[1].original == costs[0].original * (len(x) if form in ("program", "module") else 1)
    assert all(cost.reached <= 0.4 * cost.original for cost in costs)
    sizes = [sorted(p.numel() for p in r.model.parameters()) for r in (plain, found)]
    if case == "convolves":  # of attention a program says less: queries may have other widths than the stream
        assert sizes[0] == sizes[1]
        assert torch.allclose(plain.model(x), found.model(x), atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    found.save(tmp_path)
    again = compressor.load(tmp_path, model=program(form, make().eval(), x))
    assert torch.equal(again(x), found.model(x))


def test_a_program_as_a_part() -> None:
    x = CASES["convolves"][1]
    part = torch.export.export(Convolves().eval(), (x,)).module()
    model = nn.Sequential(part, nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 3))
    result = compressor.compress(model, x, {"flops": "60%"}, search="oneshot")
    assert result.model(x).shape == (2, 3)
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in model.parameters())


def test_programs_are_trained_and_exported(tmp_path: Path) -> None:
    make, x = CASES["convolves"]
    batches = [(torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))) for _ in range(4)]
    given = program("any batch", make().eval(), x)
    result = compressor.compress(
        given, x, {"flops": "50%"}, data=(batches, batches), search_epochs=1, finetune_epochs=1
    )
    (path,) = result.export(tmp_path)
    assert path.is_file()


def test_opened_keeps_the_tensors() -> None:
    make, x = CASES["attends"]
    given = program("module", make().eval(), x)
    found = opened(given)
    assert found is not given
    assert {id(p) for p in found.parameters()} == {id(p) for p in given.parameters()}
    assert torch.equal(found(x), given(x))
    plain = make()
    assert opened(plain) is plain


def _quantised() -> nn.Module:
    torch.backends.quantized.engine = "qnnpack" if "qnnpack" in torch.backends.quantized.supported_engines else "fbgemm"
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)), {nn.Linear})


class Wrapping(nn.Module):
    """A part that is used, or not."""

    def __init__(self, part: nn.Module, *, used: bool) -> None:
        super().__init__()
        self.first, self.part, self.last, self.used = nn.Linear(8, 8), part, nn.Linear(8, 4), used

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(self.part(x) if self.used else x)


def _loaded(folder: Path) -> nn.Module:
    torch.jit.save(torch.jit.script(nn.Linear(8, 8)), str(folder / "m.pt"))
    found: nn.Module = torch.jit.load(str(folder / "m.pt"))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("used", [True, False, None])
@pytest.mark.parametrize("form", ["script", "trace", "frozen", "loaded"])
def test_torchscript_is_refused_by_name(form: str, used: bool | None, tmp_path: Path) -> None:
    part = {
        "script": lambda: torch.jit.script(nn.Linear(8, 8)),
        "trace": lambda: torch.jit.trace(nn.Linear(8, 8), torch.randn(1, 8)),
        "frozen": lambda: torch.jit.freeze(torch.jit.script(nn.Linear(8, 8).eval())),
        "loaded": lambda: _loaded(tmp_path),
    }[form]()
    model = part if used is None else Wrapping(part, used=used)
    with pytest.raises(UnsupportedModelError, match="TorchScript") as caught:
        compressor.compress(model, torch.randn(1, 8), {"flops": "50%"})
    assert used is None or "'part'" in str(caught.value)
    with pytest.raises(UnsupportedModelError, match="TorchScript"):
        compressor.prepare(model, torch.randn(1, 8), {"flops": "50%"}, total_steps=4)


@pytest.mark.filterwarnings("ignore")
def test_quantised_modules_are_refused_by_name() -> None:
    for model in (_quantised(), Wrapping(_quantised(), used=True)):
        with pytest.raises(UnsupportedModelError, match=r"quantised .*dynamic.*floating point"):
            compressor.compress(model, torch.randn(1, 8), {"flops": "50%"})


@pytest.mark.parametrize("wrong", [{"a": torch.zeros(1)}, nn.Linear, torch.zeros(1), "resnet18", None, lambda x: x])
def test_what_is_no_module_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"must be a torch\.nn\.Module, not a"):
        compressor.compress(wrong, torch.randn(1, 8), {"flops": "50%"})


def test_an_exported_program_is_no_model_for_a_loop() -> None:
    make, x = CASES["convolves"]
    for given in (program("program", make(), x), program("module", make(), x)):
        with pytest.raises(UnsupportedModelError, match=r"torch\.export"):
            compressor.prepare(given, x, {"flops": "50%"}, total_steps=4)
