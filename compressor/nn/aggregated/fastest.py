"""Which form of a mixture is the quickest: measured once per shape, as the layer is used, and remembered.

In memory for the process, and in the latency table for the next one (``remembered``). Forms take turns, so that other
load on a machine falls on all of them; one that arithmetic or a short run says is hopeless is not run in full, because
a mixture of 49 kernels can take minutes in the wrong form.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from compressor.nn.aggregated import remembered
from compressor.nn.aggregated.cases import Case, Took
from compressor.nn.aggregated.forms import FORMS, computed, estimate
from compressor.nn.aggregated.spans import Layout

#: So many times the multiply-adds of the best are hopeless. Graphics cards differ more between kinds of arithmetic.
HOPELESS, HOPELESS_ON_GPU = 20.0, 100.0
#: Fewer multiply-adds than this are quick, whatever the ratio.
QUICK = 1e8
#: A first run this many times as long as the best one's decides, too.
SLOWER = 3.0
#: Turns of each form at most and, once ``SECONDS`` have passed, at least.
TURNS, LEAST_TURNS = 7, 3
SECONDS = 1.0
#: Sizes of input that are measured per layer; where they vary more, further ones take the form of the nearest.
SIZES = 8


_chosen: dict[Case, str] = {}
_by_layer: dict[Case, dict[Case, str]] = {}
_lock = threading.RLock()


def forget() -> None:
    """Forget what this process has measured; the latency table keeps it."""
    with _lock:
        _chosen.clear()
        _by_layer.clear()


def estimated(x: Tensor, weights: Sequence[Tensor], where: Layout, groups: int) -> str:
    """The form with the fewest multiply-adds: always the same for the same shapes, and nothing is run."""
    kernel = weights[0].shape[0], weights[0].shape[1]
    return min(FORMS, key=lambda form: estimate(form, where, kernel, max(1, len(x)), groups))


def chosen(
    case: Case, x: Tensor, mixture: Tensor, weights: Sequence[Tensor], bias: Tensor | None, where: Layout
) -> str:
    """The quickest form for a case: known, from the table, or measured now on this input.

    Where nothing can be measured (no real numbers, a graph that is being recorded) it is the estimated one.
    """
    known = _chosen.get(case)
    if known is not None:
        return known
    if not _measurable(x):
        return estimated(x, weights, where, case.groups)
    with _lock:  # side by side, runs would disturb each other
        if case not in _chosen:
            others = _by_layer.setdefault(case.layer, {})
            if len(others) >= SIZES:
                _chosen[case] = others[min(others, key=lambda other: _distance(case, other))]
            else:
                _chosen[case] = others[case] = _decide(case, x, mixture, weights, bias, where)
        return _chosen[case]


def _distance(one: Case, other: Case) -> float:
    pairs = zip((one.batch, *one.size), (other.batch, *other.size), strict=True)
    return sum(abs(math.log(a / b)) for a, b in pairs)


def _measurable(x: Tensor) -> bool:
    if x.numel() == 0 or x.is_meta or type(x) not in (Tensor, nn.Parameter):
        return False
    if _get_current_dispatch_mode() is not None or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return False  # somebody records what is run
    return not (x.device.type == "cuda" and torch.cuda.is_current_stream_capturing())


def _decide(
    case: Case, x: Tensor, mixture: Tensor, weights: Sequence[Tensor], bias: Tensor | None, where: Layout
) -> str:
    known = remembered.look_up(case)
    if known:
        return min(known, key=lambda form: known[form])
    kernel = weights[0].shape[0], weights[0].shape[1]
    costs = {form: estimate(form, where, kernel, len(x), case.groups) for form in FORMS}

    def run(form: str, rows: int) -> float:
        return seconds(form, x[:rows], mixture, weights, bias, where, case)

    took = measured(costs, run, len(x), on_gpu=x.device.type != "cpu")
    remembered.keep(case, took)
    times = {form: median(each.seconds) for form, each in took.items() if each.seconds}
    return min(times, key=lambda form: times[form]) if times else "weights"


def measured(
    costs: dict[str, float], run: Callable[[str, int], float], batch: int, *, on_gpu: bool = False
) -> dict[str, Took]:
    """Times of the forms, the hopeless left out.

    Args:
        costs: multiply-adds by form, about.
        run: seconds that a form takes with so many examples.
        batch: examples in all.
    """
    took: dict[str, Took] = {}
    order = sorted(costs, key=lambda form: costs[form])
    least, best = costs[order[0]], math.inf
    for form in order:
        ratio = costs[form] / least
        if costs[form] > QUICK and ratio > (HOPELESS_ON_GPU if on_gpu else HOPELESS):
            took[form] = Took(why=f"{ratio:.0f} times the multiply-adds of {order[0]}")
            continue
        # Transforms of kernels take what they take, so that few examples say nothing about many.
        short = costs[form] > QUICK and ratio > SLOWER and form != "fft" and math.isfinite(best)
        rows = max(1, int(batch * SLOWER / ratio)) if short else batch
        try:
            first = run(form, rows) * batch / rows
            if first < SECONDS:  # the very first run plans and allocates
                first = min(first, run(form, rows) * batch / rows)
        except (RuntimeError, NotImplementedError) as error:  # out of memory, or nothing for this dtype
            took[form] = Took(why=" ".join(str(error).split())[:200])
            continue
        best = min(best, first)
        took[form] = Took((first,))
    for form, each in took.items():
        if each.seconds and each.seconds[0] > SLOWER * best:
            took[form] = Took(why=f"{each.seconds[0] / best:.1f} times as long as the best in a first run")
    left = [form for form in order if took[form].seconds]
    if len(left) > 1:
        took |= {form: Took(tuple(each)) for form, each in _in_turn(left, run, batch).items()}
    return took


def _in_turn(forms: list[str], run: Callable[[str, int], float], batch: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {form: [] for form in forms}
    spent = 0.0
    for turn in range(TURNS):
        for form in forms if turn % 2 == 0 else reversed(forms):
            times[form].append(run(form, batch))
            spent += times[form][-1]
        if spent > SECONDS and turn + 1 >= LEAST_TURNS:
            break
    return times


def seconds(
    form: str,
    x: Tensor,
    mixture: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    where: Layout,
    case: Case,
) -> float:
    """Seconds of a forward pass and, where something learns, a backward pass. No gradient is kept, no hook is called,
    no random number drawn."""
    of_x, of_weights, of_mixture = case.learns
    x, mixture = x.detach().requires_grad_(of_x), mixture.detach().requires_grad_(of_mixture)
    kernels = [weight.detach().requires_grad_(of_weights) for weight in weights]
    bias = None if bias is None else bias.detach()
    wanted = [tensor for tensor in (x, mixture, *kernels) if tensor.requires_grad]
    _wait(x)
    started = time.perf_counter()
    with torch.set_grad_enabled(bool(wanted)):
        y = computed(form, x, mixture, kernels, bias, where, case.groups)
    if wanted:
        torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)
    _wait(x)
    return time.perf_counter() - started


def _wait(x: Tensor) -> None:
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
