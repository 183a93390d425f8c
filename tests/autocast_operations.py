"""More than sixty operations to try autocast on: name -> a call on three tensors.

x is a 4 x 4 matrix, y another one, b a batch of two such matrices; all floating point.
"""

import torch
from torch.nn import functional as F

BF16, FP32 = torch.bfloat16, torch.float32
DTYPE_PAIRS = {"fp32": (FP32, FP32), "bf16": (BF16, BF16), "mixed": (FP32, BF16)}
LABELS = torch.tensor([0, 1, 2, 3])


def _image(b):
    return b[None]


def _volume(b):
    return b[None, None].expand(1, 1, 2, 4, 4)


OPERATIONS = {
    # matrix products
    "mm": lambda x, y, b: torch.mm(x, y),
    "matmul": lambda x, y, b: x @ y,
    "matmul method": lambda x, y, b: x.matmul(y),
    "bmm": lambda x, y, b: torch.bmm(b, b),
    "addmm": lambda x, y, b: torch.addmm(x, y, y),
    "baddbmm": lambda x, y, b: torch.baddbmm(b, b, b),
    "addbmm": lambda x, y, b: torch.addbmm(x, b, b),
    "mv": lambda x, y, b: torch.mv(x, y[0]),
    "addmv": lambda x, y, b: torch.addmv(x[0], x, y[0]),
    "addr": lambda x, y, b: torch.addr(x, x[0], y[0]),
    "linear": lambda x, y, b: F.linear(x, y, x[0]),
    "einsum": lambda x, y, b: torch.einsum("ij,jk->ik", x, y),
    "multi_dot": lambda x, y, b: torch.linalg.multi_dot([x, y, x]),
    "vecdot": lambda x, y, b: torch.linalg.vecdot(x, y),
    "tensordot": lambda x, y, b: torch.tensordot(x, y, 1),
    "conv1d": lambda x, y, b: F.conv1d(b, b[:, :, :2]),
    "conv2d": lambda x, y, b: F.conv2d(_image(b), b[:1][:, None].expand(1, 2, 4, 4)),
    "conv3d": lambda x, y, b: F.conv3d(_volume(b), _volume(b)),
    "conv_transpose2d": lambda x, y, b: F.conv_transpose2d(_image(b), b[:, None]),
    "prelu": lambda x, y, b: F.prelu(x, y[0, :1]),
    "attention": lambda x, y, b: F.scaled_dot_product_attention(b, b, b),
    # element by element
    "add": lambda x, y, b: x + y,
    "mul": lambda x, y, b: x * y,
    "div": lambda x, y, b: x / (y + 9),
    "exp": lambda x, y, b: x.exp(),
    "expm1": lambda x, y, b: torch.expm1(x),
    "log": lambda x, y, b: (x * x + 1).log(),
    "log1p": lambda x, y, b: torch.log1p(x * x),
    "pow": lambda x, y, b: x**2,
    "pow method": lambda x, y, b: x.pow(2),
    "reciprocal": lambda x, y, b: (x * x + 1).reciprocal(),
    "rsqrt": lambda x, y, b: (x * x + 1).rsqrt(),
    "sqrt": lambda x, y, b: (x * x).sqrt(),
    "sinh": lambda x, y, b: x.sinh(),
    "cosh": lambda x, y, b: x.cosh(),
    "tan": lambda x, y, b: x.tan(),
    "tanh": lambda x, y, b: x.tanh(),
    "sigmoid": lambda x, y, b: x.sigmoid(),
    "relu": lambda x, y, b: F.relu(x),
    "gelu": lambda x, y, b: F.gelu(x),
    "silu": lambda x, y, b: F.silu(x),
    "softplus": lambda x, y, b: F.softplus(x),
    "atan2": lambda x, y, b: torch.atan2(x, y),
    "addcmul": lambda x, y, b: torch.addcmul(x, x, y),
    "addcdiv": lambda x, y, b: torch.addcdiv(x, x, y * y + 1),
    # sums and norms
    "sum": lambda x, y, b: x.sum(),
    "sum over a dimension": lambda x, y, b: torch.sum(x, dim=0),
    "mean": lambda x, y, b: x.mean(),
    "prod": lambda x, y, b: x.prod(),
    "cumsum": lambda x, y, b: x.cumsum(0),
    "cumprod": lambda x, y, b: x.cumprod(0),
    "softmax": lambda x, y, b: F.softmax(x, dim=-1),
    "softmax method": lambda x, y, b: x.softmax(-1),
    "log_softmax": lambda x, y, b: F.log_softmax(x, dim=-1),
    "logsumexp": lambda x, y, b: x.logsumexp(-1),
    "norm": lambda x, y, b: x.norm(),
    "vector_norm": lambda x, y, b: torch.linalg.vector_norm(x),
    "layer_norm": lambda x, y, b: F.layer_norm(x, (4,)),
    "rms_norm": lambda x, y, b: F.rms_norm(x, (4,)),
    "group_norm": lambda x, y, b: F.group_norm(x, 2),
    "cosine_similarity": lambda x, y, b: F.cosine_similarity(x, y),
    "cdist": lambda x, y, b: torch.cdist(x, y),
    "trace": lambda x, y, b: torch.trace(x),
    "quantile": lambda x, y, b: torch.quantile(x.float(), 0.5),
    # losses
    "cross_entropy": lambda x, y, b: F.cross_entropy(x, LABELS),
    "nll_loss": lambda x, y, b: F.nll_loss(x, LABELS),
    "mse_loss": lambda x, y, b: F.mse_loss(x, y),
    "l1_loss": lambda x, y, b: F.l1_loss(x, y),
    "huber_loss": lambda x, y, b: F.huber_loss(x, y),
    "kl_div": lambda x, y, b: F.kl_div(x, y, reduction="batchmean"),
    "bce_with_logits": lambda x, y, b: F.binary_cross_entropy_with_logits(x, y.sigmoid()),
    # shapes
    "cat": lambda x, y, b: torch.cat([x, y]),
    "stack": lambda x, y, b: torch.stack([x, y]),
    "transpose": lambda x, y, b: x.t(),
    "masked_fill": lambda x, y, b: x.masked_fill(x > 0, 0.0),
    "embedding": lambda x, y, b: F.embedding(LABELS, x),
    "dropout": lambda x, y, b: F.dropout(x, 0.0),
}


def inputs(first: torch.dtype, second: torch.dtype, device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((4, 4), (4, 4), (2, 4, 4))
    values = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    return [value.to(dtype) for value, dtype in zip(values, (first, second, first), strict=True)]


def outcome(operation, tensors):
    """The result, or the kind of error: an operation may refuse a mixture in both worlds."""
    try:
        return operation(*tensors)
    except (RuntimeError, IndexError) as error:
        return type(error).__name__
