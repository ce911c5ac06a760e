"""The operations that a program may use: a fixed dictionary made of the constants below, never of an uploaded name.

Not among them: what reads or writes files (`from_file`, `save`), what makes a tensor of other memory (`as_strided`, `set_`,
`resize_`, `empty`), what gives Python numbers of tensors (`item`, `nonzero`), custom operations, `out=` overloads, and
operators on integers that can grow without bounds (`pow`, shifts).
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

_LAYERS = """
conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding
conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input linear.default bilinear.default
batch_norm.default layer_norm.default group_norm.default instance_norm.default rms_norm.default embedding.default
dropout.default feature_dropout.default alpha_dropout.default scaled_dot_product_attention.default
max_pool1d.default max_pool2d.default max_pool3d.default avg_pool1d.default avg_pool2d.default avg_pool3d.default
adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default
adaptive_max_pool1d.default adaptive_max_pool2d.default
max_pool2d_with_indices.default upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest2d.default
upsample_bilinear2d.vec upsample_bilinear2d.default upsample_bicubic2d.vec upsample_bicubic2d.default
_upsample_nearest_exact2d.vec _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec
pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default im2col.default col2im.default grid_sampler.default
grid_sampler_2d.default affine_grid_generator.default
"""
_ACTIVATIONS = """
relu.default relu6.default leaky_relu.default prelu.default elu.default celu.default selu.default gelu.default silu.default
mish.default hardswish.default hardsigmoid.default hardtanh.default sigmoid.default tanh.default softplus.default
softmax.int log_softmax.int logsigmoid.default log_sigmoid.default glu.default threshold.default hardshrink.default
softshrink.default
"""
_MATHS = """
add.Tensor add.Scalar sub.Tensor sub.Scalar mul.Tensor mul.Scalar div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode
rsub.Scalar rsub.Tensor neg.default abs.default exp.default expm1.default log.default log1p.default log2.default
sqrt.default rsqrt.default reciprocal.default square.default sin.default cos.default atan.default atan2.default
erf.default floor.default ceil.default round.default trunc.default frac.default sign.default pow.Tensor_Scalar
pow.Tensor_Tensor pow.Scalar remainder.Scalar remainder.Tensor fmod.Scalar floor_divide.default floor_divide.Scalar
maximum.default minimum.default clamp.default clamp.Tensor clamp_min.default clamp_max.default lerp.Scalar lerp.Tensor
addcmul.default addcdiv.default where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar masked_fill.Tensor
eq.Scalar eq.Tensor ne.Scalar ne.Tensor lt.Scalar lt.Tensor le.Scalar le.Tensor gt.Scalar gt.Tensor ge.Scalar ge.Tensor
logical_and.default logical_or.default logical_not.default bitwise_and.Tensor bitwise_or.Tensor bitwise_not.default
isnan.default isinf.default nan_to_num.default
"""
_REDUCTIONS = """
mean.default mean.dim sum.default sum.dim_IntList prod.dim_int amax.default amin.default max.default max.dim min.default
min.dim argmax.default argmin.default var.correction var.dim var.default std.correction std.dim var_mean.correction
var_mean.dim norm.ScalarOpt_dim linalg_vector_norm.default logsumexp.default cumsum.default topk.default sort.default
any.dim all.dim
"""
_PRODUCTS = """
matmul.default mm.default bmm.default baddbmm.default addmm.default mv.default dot.default einsum.default outer.default
_weight_norm.default
"""
_SHAPES = """
view.default reshape.default _unsafe_view.default view_as.default reshape_as.default flatten.using_ints unflatten.int
squeeze.default squeeze.dim squeeze.dims unsqueeze.default permute.default transpose.int t.default mT.default numpy_T.default
swapaxes.default movedim.int movedim.intlist expand.default expand_as.default repeat.default repeat_interleave.self_int
tile.default cat.default concat.default stack.default split.Tensor split_with_sizes.default split.sizes chunk.default
unbind.int select.int slice.Tensor narrow.default index.Tensor index_select.default gather.default flip.default roll.default
constant_pad_nd.default pad.default reflection_pad2d.default replication_pad2d.default tril.default triu.default
unfold.default diagonal.default broadcast_tensors.default meshgrid.default meshgrid.indexing one_hot.default
atleast_3d.default hstack.default vstack.default select_scatter.default slice_scatter.default
"""
_COPIES = """
clone.default contiguous.default detach.default detach_.default alias.default lift_fresh_copy.default type_as.default
to.dtype to.device to.dtype_layout to.other _to_copy.default
zeros.default ones.default full.default arange.default arange.start arange.start_step linspace.default eye.default
scalar_tensor.default zeros_like.default ones_like.default full_like.default new_zeros.default new_ones.default new_full.default
rand.default randn.default rand_like.default randn_like.default bernoulli.default bernoulli.p
"""
_IN_PLACE = """
add_.Tensor sub_.Tensor mul_.Tensor div_.Tensor add_.Scalar mul_.Scalar div_.Scalar relu_.default silu_.default
hardtanh_.default hardswish_.default hardsigmoid_.default leaky_relu_.default elu_.default sigmoid_.default tanh_.default
gelu_.default mish_.default clamp_.default clamp_min_.default relu6_.default celu_.default selu_.default
dropout_.default fill_.Scalar fill_.Tensor zero_.default copy_.default bernoulli_.float masked_fill_.Scalar
masked_fill_.Tensor uniform_.default normal_.default
"""
_SIZES = "sym_size.int sym_numel.default sym_stride.int"
_ON_INTEGERS = ("add", "sub", "mul", "floordiv", "mod", "neg", "truediv", "getitem", "eq", "ne", "lt", "le", "gt", "ge")
"""Functions of the module `operator`."""
_ON_SYMBOLS: Mapping[str, Callable[..., Any]] = {
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_int": int,
    "torch.sym_float": float,
}

FRESH = frozenset(
    f"aten.{name}"
    for name in [
        "conv1d.default",
        "conv1d.padding",
        "conv2d.default",
        "conv2d.padding",
        "conv3d.default",
        "conv3d.padding",
        "conv_transpose1d.default",
        "conv_transpose2d.input",
        "conv_transpose3d.input",
        "linear.default",
        "batch_norm.default",
        "layer_norm.default",
        "group_norm.default",
        "instance_norm.default",
        "matmul.default",
        "softmax.int",
        "log_softmax.int",
        "max_pool1d.default",
        "max_pool2d.default",
        "avg_pool1d.default",
        "adaptive_avg_pool1d.default",
        "adaptive_avg_pool2d.default",
        "scaled_dot_product_attention.default",
        "cat.default",
        "stack.default",
        "square.default",
        "relu6.default",
        "selu.default",
        "softplus.default",
        "mish.default",
        "silu.default",
    ]
)
"""Composite operations that never return the memory of an argument."""


@dataclass(frozen=True)
class Operation:
    """One operation: what is called, and torch's schema of it (None for operators on integers)."""

    name: str
    function: Callable[..., Any]
    schema: Any = None

    @property
    def changes(self) -> bool:
        """Whether it writes into its first argument."""
        return self.schema is not None and bool(self.schema.is_mutable)

    @property
    def may_share(self) -> bool:
        """Whether its result may lie in the memory of an argument; in doubt it may."""
        if self.schema is None or self.changes:
            return True
        if any(each.alias_info is not None for each in self.schema.returns):
            return True
        key = "CompositeImplicitAutograd"
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(self.function.name(), key)  # type: ignore[attr-defined]
        return composite and self.name not in FRESH

    def __deepcopy__(self, memo: Any) -> "Operation":
        return self


def _aten(name: str) -> Operation | None:
    """The operation of one of the constants above; None where this version of torch has none of this name."""
    packet, _, overload = name.partition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    return None if found is None else Operation(f"aten.{name}", found, found._schema)


def _table() -> dict[str, Operation]:
    texts = (_LAYERS, _ACTIVATIONS, _MATHS, _REDUCTIONS, _PRODUCTS, _SHAPES, _COPIES, _IN_PLACE, _SIZES)
    found = [_aten(name) for text in texts for name in text.split()]
    table = {each.name: each for each in found if each is not None}
    for name in _ON_INTEGERS:
        table[f"operator.{name}"] = Operation(f"operator.{name}", getattr(operator, name))
    for name, function in _ON_SYMBOLS.items():
        table[name] = Operation(name, function)
    return table


OPERATIONS: Mapping[str, Operation] = _table()
