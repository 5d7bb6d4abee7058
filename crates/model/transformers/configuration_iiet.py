"""The `config.json` of IIET models, for Hugging Face `transformers` (4.57 and 5.x).

`iiet` writes this file and `modeling_iiet.py` beside the weights, so that

    AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)

loads a model whose layers are steps of an ODE solver. The keys are LLaMA's, and `solver` with the options of that
solver. Licensed, like the rest of `iiet`, under MIT or Apache-2.0.
"""

from transformers import GenerationConfig, PretrainedConfig

# The solvers, and the keys of `config.json` that are theirs alone.
OPTIONS = {
    "explicit_euler": (),
    "runge_kutta": ("predictor_order",),
    "predictor_corrector": ("predictor_order",),
    "implicit_euler": ("iterations", "gradient", "tolerance", "backprop", "anderson"),
    "iterative_implicit_euler": ("iterations", "history", "normalise_first", "gate", "tolerance", "backprop", "anderson"),
    "adams_bashforth": ("first_step",),
}

# What they are where config.json does not say; None is no gate, no tolerance, and backprop through all corrections.
DEFAULTS = {
    "iterations": 3,
    "predictor_order": 2,
    "first_step": "euler",
    "history": "mean",
    "normalise_first": False,
    "gate": None,
    "tolerance": None,
    "backprop": None,
    "anderson": 0,
    "gradient": "unrolled",
}

# The values of options that are one of a few.
ALLOWED = {
    "predictor_order": (2, 4),
    "first_step": ("euler", "heun"),
    "history": ("mean", "textbook"),
    "normalise_first": (False, True),
    "anderson": tuple(range(17)),
    "gradient": ("unrolled", "implicit"),
}

# The most corrections that a layer may take, as in `iiet`.
MAX_CORRECTIONS = 4096

# Keys that `transformers` or its tools write into any config.json, beyond those of its base classes.
OF_TRANSFORMERS = {
    "_attn_implementation", "_name_or_path", "architectures", "attn_implementation", "auto_map", "dtype",
    "experts_implementation", "model_type", "name_or_path", "num_labels", "output_attentions", "output_hidden_states",
    "per_layer_config", "quantization_config", "return_dict", "tokenizer_class", "torch_dtype",
    "transformers_version", "use_cache",
}  # fmt: skip


class IietConfig(PretrainedConfig):
    """Sizes, rotary embedding and solver of an IIET model.

    Args:
        vocab_size: number of token ids.
        hidden_size: width of the hidden states.
        intermediate_size: width inside the feed-forward layer.
        num_hidden_layers: number of layers, N.
        num_attention_heads: query heads.
        num_key_value_heads: key and value heads; as many as query heads if it is None.
        head_dim: width of a head; `hidden_size / num_attention_heads` if it is None.
        attention_bias: whether all four projections of attention have biases.
        qkv_bias: whether those of queries, keys and values have, as in Qwen2.
        qk_norm: whether queries and keys have a norm before they are rotated, as in Qwen3.
        residual_multiplier: a factor on attention and feed-forward layer, as in Granite.
        max_position_embeddings: the longest sequence that the model is meant for, in tokens.
        initializer_range: standard deviation of fresh weight matrices.
        rms_norm_eps: what RMSNorm adds to the mean square.
        rope_parameters: `rope_theta`, and `rope_type` `"default"` or `"llama3"` with the latter's numbers.
        rope_theta, rope_scaling: the same in the older form, which is read and not written.
        tie_word_embeddings: whether the output projection is the embedding.
        solver: one of `OPTIONS`; explicit Euler is the LLaMA layer.
        others: the options of the solver, and keys that belong to `transformers`. `iterations` are the corrections r_n
            of implicit solvers, one number or a list with one for each layer; `predictor_order` is the order, 2 or 4,
            of Runge-Kutta methods and predictors; `first_step` is how Adams-Bashforth takes its first step, `"euler"`
            or `"heun"`. The others are described under "Options beyond the published method" in iiet's docs/method.md.

    Raises:
        ValueError: a size that does not fit, or a key whose meaning this file does not know. Such a key may be an
            option of a newer `iiet` that changes what the model computes; it is never ignored.
    """

    model_type = "iiet"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
        self,
        vocab_size=32000,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=None,
        head_dim=None,
        attention_bias=False,
        qkv_bias=False,
        qk_norm=False,
        residual_multiplier=1.0,
        max_position_embeddings=2048,
        initializer_range=0.02,
        rms_norm_eps=1e-6,
        rope_parameters=None,
        rope_theta=None,
        rope_scaling=None,
        hidden_act="silu",
        tie_word_embeddings=False,
        solver="explicit_euler",
        use_cache=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        **others,
    ):
        given = {key: others.pop(key, None) for key in DEFAULTS}
        refuse_unknown(others)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_attention_heads if num_key_value_heads is None else num_key_value_heads
        if head_dim is not None:
            self.head_dim = head_dim
        for key, value in (("attention_bias", attention_bias), ("qkv_bias", qkv_bias), ("qk_norm", qk_norm)):
            setattr(self, key, bool(value))
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        if residual_multiplier != 1.0:
            self.residual_multiplier = residual_multiplier
        self.rope_parameters = rotary(rope_parameters, rope_theta, rope_scaling)
        self.hidden_act = hidden_act
        self.solver = solver
        self.use_cache = use_cache
        # Those of other solvers are left out, as in the files that iiet writes.
        for key in OPTIONS.get(solver, ()):
            setattr(self, key, DEFAULTS[key] if given[key] is None else given[key])
        self.check_sizes()
        self.check_solver()
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **others,
        )

    @property
    def head_width(self):
        """Width of an attention head."""
        return getattr(self, "head_dim", self.hidden_size // self.num_attention_heads)

    @property
    def corrections(self):
        """r_n, one number for each layer."""
        per_layer = isinstance(self.iterations, (list, tuple))
        return list(self.iterations) if per_layer else [self.iterations] * self.num_hidden_layers

    @property
    def evaluations(self):
        """How often each layer is evaluated in one pass: each evaluation has keys and values of its own."""
        layers = range(self.num_hidden_layers)
        if self.solver == "runge_kutta":
            return [self.predictor_order for _ in layers]
        if self.solver == "predictor_corrector":
            return [self.predictor_order + 1 for _ in layers]
        if self.solver in ("implicit_euler", "iterative_implicit_euler"):
            return [1 + r for r in self.corrections]
        if self.solver == "adams_bashforth" and self.first_step == "heun":
            return [2 if layer == 0 else 1 for layer in layers]
        return [1 for _ in layers]

    def check_sizes(self):
        """Refuses sizes of which no model can be made."""
        if self.hidden_act != "silu":
            raise ValueError(f"hidden_act is {self.hidden_act!r}; allowed: 'silu'")
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                    "num_key_value_heads", "max_position_embeddings"):  # fmt: skip
            size = getattr(self, key)
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{key} is {size!r}; allowed: 1 and above")
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if hasattr(self, "head_dim"):
            if not isinstance(self.head_dim, int) or self.head_dim < 2 or self.head_dim % 2:
                raise ValueError(f"head_dim is {self.head_dim!r}; allowed: even numbers, 2 and above")
        elif self.hidden_size % (2 * heads):
            raise ValueError(f"hidden_size is {self.hidden_size}; allowed: even multiples of num_attention_heads, {heads}")
        if heads % kv_heads:
            raise ValueError(f"num_key_value_heads is {kv_heads}; allowed: divisors of num_attention_heads, {heads}")

    def check_solver(self):
        """Refuses a solver or an option that there is not."""
        if self.solver not in OPTIONS:
            raise ValueError(f"solver is {self.solver!r}; allowed: {', '.join(OPTIONS)}")
        for key, allowed in ALLOWED.items():
            value = getattr(self, key, None)
            if key in OPTIONS[self.solver] and value not in allowed:
                raise ValueError(f"{key} is {value!r}; allowed: {', '.join(map(str, allowed))}")
        if "iterations" in OPTIONS[self.solver]:
            if len(self.corrections) != self.num_hidden_layers:
                found, layers = len(self.corrections), self.num_hidden_layers
                raise ValueError(f"iterations lists {found} layers, the model has {layers}")
            for r in self.corrections:
                if not isinstance(r, int) or not 0 <= r <= MAX_CORRECTIONS:
                    raise ValueError(f"iterations is {r!r} in a layer; allowed: 0 to {MAX_CORRECTIONS}")
        for key, holds, allowed in (
            ("gate", lambda g: 0.0 <= g <= 1.0, "0 to 1"),
            ("tolerance", lambda change: 0.0 < change < float("inf"), "finite and above 0"),
            ("backprop", lambda k: k >= 1, "1 and above, or none for all corrections"),
        ):
            value = getattr(self, key, None)
            if value is not None and not (isinstance(value, (int, float)) and holds(value)):
                raise ValueError(f"{key} is {value!r}; allowed: {allowed}")


def rotary(parameters, theta, scaling):
    """`rope_parameters` from either form, with `rope_type` and `rope_theta` in it."""
    found = dict(scaling or parameters or {})
    kind = found.pop("type", None)
    found.setdefault("rope_type", kind or "default")
    if theta is not None:
        found["rope_theta"] = theta
    found.setdefault("rope_theta", (parameters or {}).get("rope_theta", 10000.0))
    needed = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if found["rope_type"] not in ("default", "llama3"):
        raise ValueError(f"rope_type is {found['rope_type']!r}; allowed: 'default', 'llama3'")
    if found["rope_type"] == "llama3" and (missing := [key for key in needed if key not in found]):
        raise ValueError(f"rope_type 'llama3' lacks {', '.join(missing)}")
    return found


def refuse_unknown(keys):
    """Refuses keys that neither this file nor `transformers` gives a meaning, unless they are null or false."""
    base = PretrainedConfig()
    known = OF_TRANSFORMERS | set(base.to_dict()) | set(vars(base)) | set(GenerationConfig().to_dict())
    unknown = [key for key, value in keys.items() if key not in known and value is not None and value is not False]
    if unknown:
        listed = ", ".join(f"{key} = {keys[key]!r}" for key in sorted(unknown))
        raise ValueError(
            f"configuration_iiet.py does not know {listed}; if a newer iiet wrote this directory, "
            "`iiet convert --to transformers` of that version writes the Python files that belong to it"
        )


IietConfig.register_for_auto_class()
