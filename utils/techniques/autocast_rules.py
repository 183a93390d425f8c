"""Which operation runs in which precision: autocast's rule sets for a CPU, CUDA, and APEX's O1.

An operation is known by its public name (`linear`, `softmax`); one that is in no list (addition,
GELU) runs in the precision of its inputs, by torch's ordinary type promotion. Source: torch
2.13.0, ATen/autocast_mode.h for CUDA, and for the CPU the list in PyTorch's documentation of
torch.amp; both are held against `torch.autocast` in the tests.
Left out: operations that exist only inside other ones (`_convolution`, cuDNN's own names) and
recurrent cells.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class AutocastRules:
    """Five lists of operation names; together they decide every cast."""

    device: str
    low: frozenset[str]  # inputs to 16 bits: matrix products, where the speed is
    fp32: frozenset[str]  # inputs to fp32: results that 16 bits would spoil
    fp32_sums: frozenset[str]  # inputs stay, the operation is told to compute in fp32
    widest: frozenset[str]  # inputs to the widest dtype among them
    banned: frozenset[str] = frozenset()  # unsafe in 16 bits: refused with a sentence


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PRODUCTS = """conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d
    prelu addmm matmul mm linalg_vecdot linear addbmm baddbmm bmm scaled_dot_product_attention
    einsum chain_matmul linalg_multi_dot"""
_LOSSES = """poisson_nll_loss cosine_embedding_loss nll_loss cross_entropy hinge_embedding_loss
    kl_div l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits"""

CUDA_RULES = AutocastRules(
    device="cuda",
    low=_names(_PRODUCTS + " addmv addr mv"),
    fp32=_names(
        _LOSSES
        + """ acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow
        softplus layer_norm rms_norm group_norm cosine_similarity smooth_l1_loss dist pdist cdist
        renorm logsumexp norm"""
    ),
    fp32_sums=_names("prod softmax log_softmax cumprod cumsum sum linalg_vector_norm"),
    widest=_names(
        """addcdiv addcmul atan2 bilinear cross dot vdot grid_sample index_put scatter_add
        tensordot"""
    ),
    banned=_names("binary_cross_entropy"),
)

CPU_RULES = AutocastRules(
    device="cpu",
    low=_names(_PRODUCTS + " tensordot"),  # not on torch's list, but the product inside it is
    fp32=_names(
        _LOSSES
        + """ avg_pool3d binary_cross_entropy grid_sample polar prod quantile nanquantile cdist
        trace cholesky inverse max_pool3d adaptive_avg_pool3d pinverse fft_fft fft_rfft stft
        linalg_cholesky linalg_det linalg_inv linalg_qr linalg_svd linalg_solve linalg_matrix_norm
        linalg_cond linalg_matrix_rank linalg_eigh linalg_lstsq"""
    ),
    fp32_sums=frozenset(),
    widest=_names("stack cat index_copy"),
)

# NVIDIA/apex, apex/amp/lists, before amp was removed on 2025-05-08; attention in one kernel did not
# exist then and is treated like the products it consists of.
APEX_RULES = AutocastRules(
    device="cuda",
    low=_names(
        """conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu addmm addmv
        addr matmul mm mv linear bmm addbmm baddbmm chain_matmul scaled_dot_product_attention"""
    ),
    fp32=_names(
        _LOSSES
        + """ smooth_l1_loss exp expm1 log log10 log1p log2 pow softmax log_softmax softmin gelu
        softplus layer_norm group_norm cosine_similarity norm sum cumsum cumprod prod std var renorm
        dist acos asin cosh sinh tan erfinv reciprocal rsqrt"""
    ),
    fp32_sums=frozenset(),
    widest=_names("add sub mul div addcmul addcdiv atan2 bilinear cross dot cat stack"),
    banned=_names("binary_cross_entropy"),
)

RULES = {rules.device: rules for rules in (CPU_RULES, CUDA_RULES)}
