"""What the mixtures of one and of two dimensions have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import UninitializedParameter

from compressor.errors import TrainingError, UsageError
from compressor.nn.aggregated import candidates as lists
from compressor.nn.aggregated import fastest
from compressor.nn.aggregated.candidates import Candidate, Ints, Padding, per_axis, short, whole
from compressor.nn.aggregated.cases import Case
from compressor.nn.aggregated.forms import FORMS, autocast_dtype, computed
from compressor.nn.aggregated.spans import layout

Convolution = nn.Conv1d | nn.Conv2d
_START = 1e-3  # standard deviation of alpha before any step, as in the paper's code


class AggConv(nn.Module):
    """What both modules have in common; ``AggConv2d`` says what arguments are."""

    axes: ClassVar[int]
    ordinary: ClassVar[type[Convolution]]

    alpha: nn.Parameter | None
    bias: nn.Parameter | None
    given: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Iterable[Any],
        dilations: Iterable[Any],
        stride: int | Ints,
        padding: Padding,
        groups: int,
        bias: bool,
        form: str,
        device: Any,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        inside, out, groups = (
            whole(in_channels, "in_channels"),
            whole(out_channels, "out_channels"),
            whole(groups, "groups"),
        )
        if inside % groups or out % groups:
            raise UsageError(
                f"groups has to divide in_channels and out_channels; found {groups} for {inside} and {out}."
            )
        if not (dtype or torch.get_default_dtype()).is_floating_point:
            raise UsageError(f"dtype takes real floating point numbers; found {dtype}.")
        found = lists.product(kernel_sizes, dilations, self.axes)
        begins = lists.lefts(found, padding, self.axes)
        steps = per_axis(stride, "stride", self.axes)
        weights = [torch.empty(out, inside // groups, *c.kernel_size, device=device, dtype=dtype) for c in found]
        for weight in weights:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # as PyTorch begins each of them
        offset: nn.Parameter | None = None
        if bias:  # as the smallest of them would begin
            offset = nn.Parameter(torch.empty(out, device=device, dtype=dtype))
            bound = 1 / math.sqrt(min(weight[0].numel() for weight in weights))
            nn.init.uniform_(offset, -bound, bound)
        kept = [nn.Parameter(weight) for weight in weights]
        self._build(found, begins, kept, offset, steps, padding, groups, form)

    def _build(
        self,
        candidates: tuple[Candidate, ...],
        begins: tuple[tuple[Ints, ...], Ints],
        weights: list[nn.Parameter],
        bias: nn.Parameter | None,
        stride: Ints,
        padding: Padding,
        groups: int,
        form: str,
        alpha: bool = True,
    ) -> None:
        if form not in ("auto", *FORMS):
            raise UsageError(f"form takes auto, {', '.join(FORMS)}; found {form!r}.")
        first = weights[0]
        self.candidates = candidates
        self.in_channels, self.out_channels = first.shape[1] * groups, first.shape[0]
        self.stride, self.padding, self.groups, self.form = stride, padding, groups, form
        #: The form that computed the last forward pass that was not compiled.
        self.form_used: str | None = None
        self.given = None
        self._lefts, self._excess = begins
        self.weights = nn.ParameterList(weights)
        self.register_parameter("bias", bias)
        start = _START * torch.randn(len(candidates), device=first.device, dtype=first.dtype) if alpha else None
        self.register_parameter("alpha", None if start is None else nn.Parameter(start))

    @classmethod
    def replacing(cls, conv: Any, candidates: Iterable[Candidate], form: str, alpha: bool) -> Self:
        if not isinstance(conv, cls.ordinary):
            raise UsageError(f"{cls.__name__}.of takes nn.{cls.ordinary.__name__}; found {type(conv).__name__}.")
        if conv.padding_mode != "zeros":
            raise UsageError(
                f'{cls.__name__} pads with zeros; found a convolution of padding_mode="{conv.padding_mode}".'
            )
        weight = conv.weight
        if not isinstance(weight, nn.Parameter) or isinstance(weight, UninitializedParameter):
            raise UsageError(f"{cls.__name__}.of needs a weight that is a parameter with a shape; found another one.")
        if not weight.is_floating_point():
            raise UsageError(f"{cls.__name__} computes in real floating point; found a convolution of {weight.dtype}.")
        found = lists.checked(candidates, cls.axes)
        begins = lists.lefts_like(conv, found)
        own = lists.own_candidate(conv)
        with torch.no_grad():
            scale = weight.std(correction=0) * math.sqrt(math.prod(own.kernel_size))
            drawn = [
                weight
                if each == own
                else nn.Parameter(
                    torch.randn(*weight.shape[:2], *each.kernel_size, device=weight.device, dtype=weight.dtype)
                    * (scale / math.sqrt(math.prod(each.kernel_size)))
                )
                for each in found
            ]
        agg = cls.__new__(cls)
        nn.Module.__init__(agg)
        bias: Any = conv.bias
        agg._build(found, begins, drawn, bias, tuple(conv.stride), conv.padding, conv.groups, form, alpha)
        return agg.train(conv.training)

    def __setattr__(self, name: str, value: Any) -> None:
        """A parameter of somebody else's that is given does not become one of this module."""
        if name == "given":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and files get: ``given`` without the graph that it may come from."""
        state = dict(self.__dict__)
        if self.given is not None:
            state["given"] = self.given.detach()
        return state

    def mixture(self) -> Tensor:
        """Shares of the candidates, shape (n,): ``given`` if it is set, else softmax(alpha) in eval mode, and in
        training mode a sample of the Gumbel-softmax at temperature 1 (section 3.3).

        Raises:
            TrainingError: alpha is not finite, in eval mode.
            UsageError: there is neither alpha nor ``given``, or ``given`` has another shape.
        """
        if self.given is None and self.alpha is not None:
            if self.training:
                return functional.gumbel_softmax(self.alpha, tau=1.0, dim=0)
            return self._finite(self.alpha, "alpha").softmax(0)
        return self._given()

    def _given(self) -> Tensor:
        if self.given is None:
            raise UsageError(f"{type(self).__name__} has no alpha; set its attribute given to the mixture's shares.")
        if self.given.shape != (len(self.candidates),):
            raise UsageError(
                f"given takes one share per candidate, shape ({len(self.candidates)},); found "
                f"{tuple(self.given.shape)}."
            )
        return self.given

    def _finite(self, values: Tensor, name: str) -> Tensor:
        """The values, which are looked at: that waits for a device, so no forward in training mode does it."""
        if torch.compiler.is_compiling() or values.is_meta or bool(torch.isfinite(values).all()):
            return values
        index = int((~torch.isfinite(values)).nonzero()[0])
        raise TrainingError(
            f"{name} of {type(self).__name__}({self.extra_repr()}) is {values[index].item()} for "
            f"{self.candidates[index]}; expected finite numbers. Training has diverged: lower the learning rates, or "
            "go back to an earlier checkpoint."
        )

    def best(self) -> int:
        """Index of the candidate with the largest share: what a search ends with (section 3.3).

        Raises:
            TrainingError: the shares are not finite.
        """
        if self.given is None and self.alpha is not None:
            return int(self._finite(self.alpha, "alpha").argmax())
        return int(self._finite(self._given(), "given").argmax())

    def convolution(self, index: int) -> Convolution:
        """Candidate ``index`` as an ordinary convolution, with copies of its weight and of the bias.

        Raises:
            UsageError: there is no such candidate, or it would need a negative padding.
        """
        if isinstance(index, bool) or not 0 <= index < len(self.candidates):
            raise UsageError(f"There are candidates 0 to {len(self.candidates) - 1}; found {index!r}.")
        candidate, left, weight = self.candidates[index], self._lefts[index], self.weights[index]
        if min(left) < 0:
            raise UsageError(
                f"{candidate} would need a padding of {short(left)} by itself. Give {type(self).__name__} a padding of "
                f"{short(tuple(e // 2 for e in lists.largest(self.candidates)))}."
            )
        rights = (more - 1 + e - a for more, e, a in zip(self._excess, candidate.extent, left, strict=True))
        padding: Any = left if tuple(rights) == left else "same"
        made = self.ordinary(
            self.in_channels,
            self.out_channels,
            candidate.kernel_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            padding,
            candidate.dilation,  # type: ignore[arg-type]
            self.groups,
            self.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            made.weight.copy_(weight)
            if made.bias is not None and self.bias is not None:
                made.bias.copy_(self.bias)
        return made.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """``sum_i mixture_i Conv(w_i)(x) + bias`` (equation 2).

        Args:
            x: (B, in_channels, *size).

        Returns:
            (B, out_channels, *outputs); with padding "same" ceil(size / stride).

        Raises:
            UsageError: another rank, number of channels or dtype, or an input too small for one output.
        """
        self._check(x)
        mixture = self.mixture()
        where = layout(self.candidates, self._lefts, self._excess, self.stride, tuple(x.shape[2:]))
        weights = list(self.weights)
        form = self.form
        if form == "auto" and torch.compiler.is_compiling():  # nothing is measured in a graph
            form = self.form_used or fastest.estimated(x, weights, where, self.groups)
        elif form == "auto":
            form = self.form_used = fastest.chosen(self._case(x, mixture), x, mixture, weights, self.bias, where)
        elif not torch.compiler.is_compiling():
            self.form_used = form
        return computed(form, x, mixture, weights, self.bias, where, self.groups)

    def _check(self, x: Tensor) -> None:
        name = type(self).__name__
        if x.dim() != self.axes + 2 or x.shape[1] != self.in_channels:
            wanted = f"(batch, {self.in_channels}, {'length' if self.axes == 1 else 'height, width'})"
            raise UsageError(f"{name} takes inputs {wanted}; found {tuple(x.shape)}.")
        if any(n + more < 1 or n < 1 for n, more in zip(x.shape[2:], self._excess, strict=True)):
            raise UsageError(
                f"{name} has kernels of up to {short(lists.largest(self.candidates))} samples and padding "
                f"{self.padding}, which leave no output of an input of {short(tuple(x.shape[2:]))}: pad more."
            )
        if x.dtype != self.weights[0].dtype and not autocast_dtype(x.device.type):
            raise UsageError(
                f"{name} has weights of {self.weights[0].dtype}; found an input of {x.dtype}: convert one."
            )

    def _case(self, x: Tensor, mixture: Tensor) -> Case:
        kind = x.device.type
        grad = torch.is_grad_enabled()
        return Case(
            candidates=self.candidates,
            lefts=self._lefts,
            excess=self._excess,
            stride=self.stride,
            channels=(self.in_channels, self.out_channels),
            groups=self.groups,
            bias=self.bias is not None,
            dtype=str(self.weights[0].dtype),
            autocast=str(autocast_dtype(kind) or ""),
            device=str(x.device),
            threads=torch.get_num_threads() if kind == "cpu" else 0,
            learns=(
                grad and x.requires_grad,
                grad and any(weight.requires_grad for weight in self.weights),
                grad and mixture.requires_grad,
            ),
            batch=len(x),
            size=tuple(x.shape[2:]),
        )

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        kernels = dict.fromkeys(short(each.kernel_size) for each in self.candidates)
        dilations = dict.fromkeys(short(each.dilation) for each in self.candidates)
        return (
            f"{self.in_channels}, {self.out_channels}, kernels {', '.join(kernels)}, dilations {', '.join(dilations)}, "
            f"stride={short(self.stride)}, padding={self.padding}, groups={self.groups}, "
            f"bias={self.bias is not None}, form={self.form}"
        )
