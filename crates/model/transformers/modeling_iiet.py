"""Transformers whose layers are steps of an ODE solver, for Hugging Face `transformers` (4.57 and 5.x).

Layer n is a vector field, the change that attention and feed-forward make to a state:

    u = y + Attention_n(RMSNorm(y)),  G_n(y) = u + SwiGLU_n(RMSNorm(u)),  F_n(y) = G_n(y) - y

A solver of dy/dt = F(y) takes y_{n-1} to y_n in one step of length 1, with one evaluation of F_n or several. Each
evaluation attends to the keys and values that the same evaluation produced at earlier positions, so decoding keeps
them for every evaluation (`IietCache`) and equals the full pass.

The solvers: *IIET* (Liu et al., EMNLP 2025, arXiv 2509.22463), *ODE Transformer* (Li et al., ACL 2022, arXiv
2203.09176), *PCformer* (Li et al., NeurIPS 2024, arXiv 2411.03042). The names of parameters are those of the published
checkpoints. Licensed, like the rest of `iiet`, under MIT or Apache-2.0.
"""

import dataclasses
import inspect
import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_iiet import IietConfig

# What versions of transformers call differently.
OUTPUT_FIELDS = {field.name for field in dataclasses.fields(BaseModelOutputWithPast)}
CACHE = "cache" if "cache" in OUTPUT_FIELDS else "past_key_values"
MASK_ARGUMENTS = set(inspect.signature(create_causal_mask).parameters)


class IietRMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)`, computed in float32 and rounded once."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (self.weight.float() * wide).to(x.dtype)


class IietLayerNorm(nn.LayerNorm):
    """LayerNorm, computed in float32 and rounded once."""

    def forward(self, x):
        y = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return y.to(x.dtype)


def rotary_frequencies(config, device):
    """The frequencies `theta^(-2i/d)`, stretched as in LLaMA 3.1 if the configuration says so: `[d / 2]`."""
    rope, width = config.rope_parameters, config.head_width
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    frequency = 1.0 / rope["rope_theta"] ** exponent
    if rope["rope_type"] == "default":
        return frequency
    # "The Llama 3 Herd of Models", arXiv 2407.21783, section 3.4.2: long wavelengths are multiplied by `factor`, short
    # ones stay, those between are interpolated.
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    rotations = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
    kept = ((rotations - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 - kept) * frequency / rope["factor"] + kept * frequency


def rotary_table(config, position_ids):
    """Cosine and sine of `position * frequency`, twice side by side: `[batch, 1, seq, d]` each."""
    frequency = rotary_frequencies(config, position_ids.device)
    angle = position_ids[:, None, :, None].float() * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x, table):
    """Rotates the pairs (i, i + d/2) of `x`, `[batch, heads, seq, d]`, by the angles of the table."""
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """Attention spelled out, for `attn_implementation="eager"`; returns the weights as well."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.float().softmax(-1).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class IietAttention(nn.Module):
    """Causal attention with rotary position embedding and grouped queries; Qwen's have biases, or norms of heads."""

    def __init__(self, config):
        super().__init__()
        d_model, self.head_width = config.hidden_size, config.head_width
        n_heads, n_kv_heads = config.num_attention_heads, config.num_key_value_heads
        # The names that the attention functions of transformers look for.
        self.config, self.is_causal = config, True
        self.num_key_value_groups, self.scaling = n_heads // n_kv_heads, self.head_width**-0.5
        bias = config.attention_bias or config.qkv_bias
        self.q_proj = nn.Linear(d_model, n_heads * self.head_width, bias=bias)
        self.k_proj = nn.Linear(d_model, n_kv_heads * self.head_width, bias=bias)
        self.v_proj = nn.Linear(d_model, n_kv_heads * self.head_width, bias=bias)
        self.o_proj = nn.Linear(n_heads * self.head_width, d_model, bias=config.attention_bias)
        self.q_norm = IietRMSNorm(self.head_width, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = IietRMSNorm(self.head_width, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x, table, attention_mask, cache, slot, **kwargs):
        batch, seq, _ = x.shape
        heads = lambda y: y.view(batch, seq, -1, self.head_width).transpose(1, 2)  # noqa: E731
        query = rotate(self.q_norm(heads(self.q_proj(x))), table)
        key = rotate(self.k_norm(heads(self.k_proj(x))), table)
        value = heads(self.v_proj(x))
        if cache is not None:
            key, value = cache.update(key, value, slot)
        kind = self.config._attn_implementation
        attend = eager_attention if kind == "eager" else ALL_ATTENTION_FUNCTIONS[kind]
        y, weights = attend(self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.o_proj(y.reshape(batch, seq, -1)), weights


class IietMLP(nn.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class IietBlock(GradientCheckpointingLayer):
    """The vector field of one layer; with gradient checkpointing each evaluation is recomputed by itself."""

    def __init__(self, config):
        super().__init__()
        self.self_attn = IietAttention(config)
        self.mlp = IietMLP(config)
        self.input_layernorm = IietRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = IietRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.scale = getattr(config, "residual_multiplier", 1.0)

    def forward(self, y, table, attention_mask, cache, slot, **kwargs):
        """F(y) and the attention's weights, which are None unless attention is eager."""
        attended, weights = self.self_attn(self.input_layernorm(y), table, attention_mask, cache, slot, **kwargs)
        if self.scale != 1.0:
            attended = self.scale * attended
        fed = self.mlp(self.post_attention_layernorm(y + attended))
        return attended + (fed if self.scale == 1.0 else self.scale * fed), weights


class Field:
    """F_n and G_n of one layer in one pass. Evaluations are counted, since each has its own slot in the cache."""

    def __init__(self, block, first_slot, context, attentions):
        self.block, self.slot, self.context, self.attentions = block, first_slot, context, attentions

    def slope(self, y):
        """F_n(y)."""
        table, attention_mask, cache, kwargs = self.context
        slope, weights = self.block(y, table, attention_mask, cache, self.slot, **kwargs)
        self.slot += 1
        self.attentions.append(weights)
        return slope

    def euler(self, y):
        """G_n(y) = y + F_n(y)."""
        return y + self.slope(y)


def weighted_sum(weights, states):
    """`sum_k weights[k] states[k]` in float32, rounded once."""
    total = sum(weight.float() * state.float() for weight, state in zip(weights, states, strict=True))
    return total.to(states[0].dtype)


class Anderson:
    """Anderson acceleration of s = g(s), for each token by itself; no gradient flows through its coefficients.

    With residuals f_j = g(s_j) - s_j, the next iterate is g(s_i) - sum_j gamma_j (g(s_{j+1}) - g(s_j)), where gamma
    minimises |f_i - sum_j gamma_j (f_{j+1} - f_j)| over the last `depth` differences. Walker and Ni, SIAM J. Numer.
    Anal. 49 (2011), section 2.
    """

    # Differences shorter than so many rounding errors once the others are taken out of them say nothing.
    DEPENDENT = 100.0

    def __init__(self, depth):
        self.depth, self.last, self.differences = depth, None, []

    def mix(self, s, g):
        """s_{i+1} from s_i and g(s_i)."""
        dot = lambda a, b: (a.float() * b.float()).sum(-1, keepdim=True)  # noqa: E731
        s, g = s.detach(), g.detach()
        f = g - s
        if self.last is not None:
            self.differences.append((f - self.last[0], g - self.last[1]))
        self.differences = self.differences[-self.depth :]
        self.last = (f, g)
        # Gram-Schmidt from the newest difference to the oldest; what is done to those of f is done to those of g.
        basis = []
        for df, dg in reversed(self.differences):
            q, p = df, dg
            for q_l, p_l in basis:
                along = dot(q_l, q).to(q.dtype)
                q, p = q - along * q_l, p - along * p_l
            left, least = dot(q, q), self.DEPENDENT * torch.finfo(df.dtype).eps
            scale = torch.where(left > least**2 * dot(df, df), left.rsqrt(), torch.zeros_like(left)).to(q.dtype)
            q, p = q * scale, p * scale
            along = dot(q, f).to(q.dtype)
            f, g = f - along * q, g - along * p
            basis.append((q, p))
        return g


def iterate(config, r, s, point, evaluate, known=None):
    """r steps of s = evaluate(point(s), s), as `tolerance`, `anderson` and `backprop` of the configuration say.

    A token whose state changes by at most `tolerance` of its size keeps it, and later tokens see the keys and values of
    its last evaluation. Only the last `backprop` steps are recorded for a backward pass. `known` is a pair of a state and
    its image from before, for the acceleration.
    """
    last = config.backprop
    anderson = Anderson(config.anderson) if config.anderson else None
    if anderson and known:
        anderson.mix(*known)
    settled = at = None
    for i in range(1, r + 1):
        if last is not None and i > 1 and i + last == r + 1:
            s = s.detach()
        with torch.set_grad_enabled(torch.is_grad_enabled() and (last is None or i + last > r)):
            z = point(s)
            if settled is not None:
                z = torch.where(settled, at, z)
            after = evaluate(z, s)
            if settled is not None:
                after = torch.where(settled, s, after)
            mixed = anderson.mix(s, after) if anderson and i < r else after
            if config.tolerance is not None:
                change, size = (x.detach().float().norm(dim=-1, keepdim=True) for x in (after - s, s))
                settled, at = change <= config.tolerance * size, z
                mixed = torch.where(settled, after, mixed)
            s = mixed
    return s


def guess(config, r, field, y):
    """G_n(y), which a backward pass through the last corrections alone leaves out."""
    truncated = config.backprop is not None and config.backprop < r
    with torch.set_grad_enabled(torch.is_grad_enabled() and not truncated):
        return field.euler(y)


class IietHistory(nn.Module):
    """Learned weights over the states of the layers so far, and norms of each layer's guess and corrections.

    With `normalise_first` the first state has a norm as well, with `gate` each layer takes a learned share of its
    corrections.
    """

    def __init__(self, config):
        super().__init__()
        n_layers, d_model = config.num_hidden_layers, config.hidden_size
        self.config = config
        self.weight = nn.Parameter(self.first_weights(n_layers + 1))
        self.weight_c = nn.Parameter(self.first_weights(n_layers + 1))
        self.layer_norms = nn.ModuleList(IietLayerNorm(d_model) for _ in range(n_layers))
        self.rouge_predictions_norm = nn.ModuleList(IietLayerNorm(d_model) for _ in range(n_layers))
        if getattr(config, "normalise_first", False):
            self.first_norm = IietLayerNorm(d_model)
        if getattr(config, "gate", None) is not None:
            self.gate = nn.Parameter(torch.full((n_layers,), float(config.gate)))

    def first_weights(self, size):
        """Row n is 1 / (n + 1) up to the diagonal and zero beyond it; or the identity, the textbook's."""
        if getattr(self.config, "history", "mean") == "textbook":
            return torch.eye(size)
        ones = torch.ones(size, size).tril()
        return ones / ones.sum(-1, keepdim=True)

    def start(self, states, y):
        """s_0 = y_0, or its norm."""
        if not states:
            states.append(self.first_norm(y) if hasattr(self, "first_norm") else y)

    def correct(self, n, field, guess, r, states):
        """Takes layer n from its guess to its output in r corrections; `states` are s_0 .. s_{n-1}, and s_n joins them.

        s = LN_n^pred(guess);  r times: z = sum_{k<n} w[n,k] s_k + w[n,n] s,  s = LN_n^corr(G_n(z)), or with a gate
        s = (1 - g_n) s + g_n LN_n^corr(G_n(z));  y_n = sum_{k<=n} wc[n,k] s_k
        """
        one = torch.ones_like(self.weight[n, n])
        s = self.rouge_predictions_norm[n - 1](guess)
        past = weighted_sum(self.weight[n, :n], states) if r > 0 else None

        def point(s):
            return weighted_sum((one, self.weight[n, n]), (past, s))

        def evaluate(z, s):
            corrected = self.layer_norms[n - 1](field.euler(z))
            if not hasattr(self, "gate"):
                return corrected
            g = self.gate[n - 1]
            return weighted_sum((1 - g, g), (s, corrected))

        if self.config.solver == "predictor_corrector":
            s = evaluate(point(s), s)
        else:
            s = iterate(self.config, r, s, point, evaluate)
        states.append(s)
        return weighted_sum(self.weight_c[n, : n + 1], states)


# One layer of each solver: `n` counts from 1, `states` is what the method remembers from layer to layer.


def explicit_euler(model, n, field, y, states):
    """`y_n = G_n(y)`: the LLaMA layer."""
    return field.euler(y)


def runge_kutta(model, n, field, y, states):
    """The classical tableau of order 2 (Heun) or 4 on F_n: ODE Transformer."""
    k1 = field.slope(y)
    if model.config.predictor_order == 2:
        return y + (k1 + field.slope(y + k1)) / 2
    k2 = field.slope(y + k1 / 2)
    k3 = field.slope(y + k2 / 2)
    k4 = field.slope(y + k3)
    return y + (k1 + 2 * k2 + 2 * k3 + k4) / 6


def implicit_euler(model, n, field, y, states):
    """`z = G_n(y)`, then r_n times `z = y + F_n(z)`."""
    config, r = model.config, model.config.corrections[n - 1]
    if config.gradient == "implicit" and r > 0 and torch.is_grad_enabled() and model.training:
        raise NotImplementedError("gradient = 'implicit' is not implemented for training in transformers")
    z = guess(config, r, field, y)
    return iterate(config, r, z, lambda z: z, lambda z, _: y + field.slope(z), known=(y, z))


def iterative_implicit_euler(model, n, field, y, states):
    """The explicit guess G_n(y), then r_n corrections with a learned history: IIET."""
    r = model.config.corrections[n - 1]
    model.history.start(states, y)
    return model.history.correct(n, field, guess(model.config, r, field, y), r, states)


def predictor_corrector(model, n, field, y, states):
    """PCformer: stages `k_j = LN_j(G(z_j))` with weights alpha (1 - alpha)^(order-1-j), then one correction."""
    model.history.start(states, y)
    order, alpha = model.config.predictor_order, model.alpha[0]
    stages, z = [], y
    for j in range(order):
        stages.append(model.RK_norm[j](field.euler(z)))
        z = y + stages[j] / 2 if order == 4 and j < 2 else y + stages[j]
    weights = [alpha * (1 - alpha) ** (order - 1 - j) for j in range(order)]
    predicted = weighted_sum((torch.ones_like(alpha), *weights), (y, *stages))
    return model.history.correct(n, field, predicted, 1, states)


def adams_bashforth(model, n, field, y, states):
    """`y_n = y + 3/2 F_n(y) - 1/2 F_{n-1}(y_{n-2})`; the first step is Euler's or Heun's."""
    slope = field.slope(y)
    if states:
        after = y + 1.5 * slope - 0.5 * states.pop()
    elif model.config.first_step == "heun":
        after = y + 0.5 * slope + 0.5 * field.slope(y + slope)
    else:
        after = y + slope
    states.append(slope)
    return after


SOLVERS = {
    "explicit_euler": explicit_euler,
    "runge_kutta": runge_kutta,
    "predictor_corrector": predictor_corrector,
    "implicit_euler": implicit_euler,
    "iterative_implicit_euler": iterative_implicit_euler,
    "adams_bashforth": adams_bashforth,
}


class IietCache(DynamicCache):
    """Keys and values of every evaluation of every layer.

    The slots follow each other in the order of evaluation; `transformers` calls them layers. A `DynamicCache` that
    is still empty, as `generate` makes it, gets the same slots when the model first sees it.
    """

    def __init__(self, config):
        super().__init__()
        self.layer_class_to_replicate = None
        self.layers = [DynamicLayer() for _ in range(sum(config.evaluations))]

    @staticmethod
    def fit(cache, config):
        """Gives an empty dynamic cache the slots that the model needs, and refuses any other that has not got them.

        Raises:
            ValueError: a cache of another kind, or one that another model filled.
        """
        slots = sum(config.evaluations)
        kinds = {type(layer) for layer in getattr(cache, "layers", [None])}
        if not kinds <= {DynamicLayer}:
            raise ValueError(f"the cache is {type(cache).__name__}; allowed: IietCache, DynamicCache")
        if len(cache.layers) != slots:
            if cache.get_seq_length() > 0:
                found = len(cache.layers)
                raise ValueError(f"the cache holds tokens for {found} evaluations; this model has {slots}")
            cache.layer_class_to_replicate = None
            cache.layers[:] = [DynamicLayer() for _ in range(slots)]


class IietPreTrainedModel(PreTrainedModel):
    """Reading, writing and fresh weights."""

    config_class = IietConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["IietBlock"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # The number of slots in a cache depends on the solver, so there is no static cache to compile against.
    _can_compile_fullgraph = False

    @torch.no_grad()
    def _init_weights(self, module):
        """Normal matrices, neutral norms, row means of the history, alpha = 1/2; what was read from a file stays."""
        super()._init_weights(module)
        fresh = []
        if isinstance(module, IietHistory):
            fresh = [(w, module.first_weights(len(w))) for w in (module.weight, module.weight_c)]
            if hasattr(module, "gate"):
                fresh.append((module.gate, torch.full((len(module.gate),), float(self.config.gate))))
        if isinstance(module, IietModel) and hasattr(module, "alpha"):
            fresh = [(module.alpha, torch.full((1,), 0.5))]
        for parameter, value in fresh:
            if not getattr(parameter, "_is_hf_initialized", False):
                parameter.copy_(value)


class IietModel(IietPreTrainedModel):
    """Embedding, the layers under the solver, and the last norm."""

    def __init__(self, config):
        super().__init__(config)
        n_layers, d_model = config.num_hidden_layers, config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, d_model, config.pad_token_id)
        self.layers = nn.ModuleList(IietBlock(config) for _ in range(n_layers))
        self.norm = IietRMSNorm(d_model, config.rms_norm_eps)
        if config.solver in ("predictor_corrector", "iterative_implicit_euler"):
            self.history = IietHistory(config)
        if config.solver == "predictor_corrector":
            self.RK_norm = nn.ModuleList(IietLayerNorm(d_model) for _ in range(config.predictor_order))
            self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        cache=None,
        **kwargs,
    ):
        """The states of all tokens after the last norm.

        Args:
            input_ids: `[batch, seq]`; or `inputs_embeds`, `[batch, seq, hidden_size]`.
            attention_mask: `[batch, past + seq]`, 0 where there is padding, on either side.
            position_ids: `[batch, seq]`; counted from the tokens in the cache if it is None.
            past_key_values, cache: an `IietCache` or an empty `DynamicCache`, under the name of either version.
            use_cache: whether to make a cache if none is given.
            output_attentions: adds the attention's weights of every evaluation; needs eager attention.
            output_hidden_states: adds the embedding and each layer's output, the last one normalised.
            return_dict: False returns a tuple.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("either input_ids or inputs_embeds must be given, and not both")
        if output_attentions and self.config._attn_implementation != "eager":
            found = self.config._attn_implementation
            raise ValueError(f"output_attentions needs attn_implementation='eager'; it is {found!r}")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        kwargs.pop("cache_position", None)

        y = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            # An evaluation that runs twice would enter its keys twice.
            cache = None
        elif cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = IietCache(self.config)
        past = 0
        if cache is not None:
            IietCache.fit(cache, self.config)
            past = cache.get_seq_length()
        if position_ids is None:
            position_ids = torch.arange(past, past + y.shape[1], device=y.device)[None]
        mask = self.causal_mask(y, attention_mask, cache, past, position_ids)
        context = (rotary_table(self.config, position_ids), mask, cache, kwargs)

        step, states, attentions, trajectory = SOLVERS[self.config.solver], [], [], [y]
        first_slot = 0
        for layer, (block, evaluations) in enumerate(zip(self.layers, self.config.evaluations)):
            y = step(self, layer + 1, Field(block, first_slot, context, attentions), y, states)
            first_slot += evaluations
            trajectory.append(y)
        trajectory[-1] = y = self.norm(y)
        output = BaseModelOutputWithPast(
            last_hidden_state=y,
            hidden_states=tuple(trajectory) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            **{CACHE: cache},
        )
        return output.to_tuple() if return_dict is False else output

    def causal_mask(self, y, attention_mask, cache, past, position_ids):
        """The mask in the form that the chosen attention function takes; None where causality is all of it."""
        arguments = {
            "config": self.config,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": y,
            "input_embeds": y,
            "cache": cache,
            "past_key_values": cache,
            "cache_position": torch.arange(past, past + y.shape[1], device=y.device),
        }
        return create_causal_mask(**{name: value for name, value in arguments.items() if name in MASK_ARGUMENTS})


class IietForCausalLM(IietPreTrainedModel, GenerationMixin):
    """A language model: `IietModel` and the projection to logits."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = IietModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        cache=None,
        **kwargs,
    ):
        """Logits `[batch, seq, vocab]`, and the loss if there are labels.

        Args:
            labels: `[batch, seq]` token ids, shifted here; -100 does not count. The loss is the mean cross-entropy in
                nats, or the sum over `num_items_in_batch` if a trainer passes that.
            logits_to_keep: the last so many positions, all for 0; or a tensor of positions.

        The other arguments are those of `IietModel.forward`.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            cache=past_key_values if cache is None else cache,
            **{key: value for key, value in kwargs.items() if key != "num_items_in_batch"},
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **{CACHE: output[CACHE] if CACHE in output else None},
        )
        return output.to_tuple() if return_dict is False else output


IietModel.register_for_auto_class("AutoModel")
IietForCausalLM.register_for_auto_class("AutoModelForCausalLM")
