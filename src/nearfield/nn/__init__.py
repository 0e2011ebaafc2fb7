"""Neural networks: modules, layers, activations, losses, and initial values."""

from ..functional.activation import (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    tanh,
)
from ..functional.attention import causal_mask, rope, scaled_dot_product_attention
from ..functional.conv import (
    avg_pool,
    conv1d,
    conv2d,
    conv_transpose,
    conv_transpose2d,
    global_avg_pool,
    global_max_pool,
    max_pool,
)
from ..functional.norm import batch_norm, group_norm, instance_norm, layer_norm, local_response_norm, rms_norm
from . import init, losses
from .attention import MultiHeadAttention, TransformerBlock
from .conv import Conv1d, Conv2d, ConvTranspose2d
from .dropout import Dropout
from .embedding import Embedding
from .gradient import value_and_grad
from .linear import Linear
from .module import Module
from .norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from .pool import AvgPool, Flatten, GlobalAvgPool, GlobalMaxPool, MaxPool
from .quantize import QuantizedEmbedding, QuantizedLinear, quantize
from .quantize_static import QuantizedModel, quantize_static
from .recurrent import GRU, LSTM
from .sequential import Residual, Sequential

__all__ = [
    "GRU", "LSTM", "AvgPool", "BatchNorm", "Conv1d", "Conv2d", "ConvTranspose2d", "Dropout", "Embedding", "Flatten",
    "GlobalAvgPool", "GlobalMaxPool", "GroupNorm", "LayerNorm", "Linear", "MaxPool", "Module", "MultiHeadAttention",
    "QuantizedEmbedding", "QuantizedLinear", "QuantizedModel", "RMSNorm", "Residual", "Sequential",
    "TransformerBlock", "avg_pool", "batch_norm", "causal_mask", "celu", "conv1d", "conv2d", "conv_transpose",
    "conv_transpose2d", "elu", "gelu", "global_avg_pool", "global_max_pool", "glu", "group_norm", "hard_sigmoid",
    "hard_swish", "hard_tanh", "init", "instance_norm", "layer_norm", "leaky_relu", "local_response_norm",
    "log_sigmoid", "log_softmax", "logsumexp", "losses", "max_pool", "mish", "prelu", "quantize", "quantize_static",
    "relu", "relu6", "rms_norm", "rope", "scaled_dot_product_attention", "selu", "sigmoid", "silu", "softmax",
    "softplus", "softsign", "tanh", "value_and_grad",
]  # fmt: skip
