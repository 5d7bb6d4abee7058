//! Configurations that are read, and those that are refused.

use super::*;

pub(crate) fn sizes() -> LlamaSizes {
    LlamaSizes {
        vocab_size: 300,
        d_model: 32,
        d_ff: 48,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        seq_len: 512,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: Some(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 32,
        }),
        tie_embeddings: true,
        bos_token_id: Some(1),
        eos_token_ids: vec![0, 2],
    }
}

fn read(change: impl FnOnce(&mut Value)) -> Result<LlamaSizes, String> {
    let mut keys: Value = serde_json::from_str(&sizes().to_json()).unwrap();
    change(&mut keys);
    LlamaSizes::from_json(&keys.to_string(), Path::new("config.json"))
        .map_err(|error| error.to_string())
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(read(|_| {}), Ok(sizes()));
    let wide = LlamaSizes {
        head_dim: 16,
        rope_scaling: None,
        bos_token_id: None,
        eos_token_ids: vec![],
        ..sizes()
    };
    let read = LlamaSizes::from_json(&wide.to_json(), Path::new("config.json"));
    assert_eq!(read.unwrap(), wide);
}

#[test]
fn defaults_and_newer_keys_are_those_of_transformers() {
    let found = read(|keys| {
        for key in [
            "num_key_value_heads",
            "rope_theta",
            "rope_scaling",
            "rms_norm_eps",
        ] {
            keys[key] = Value::Null;
        }
        keys["rope_parameters"] = json!({"rope_theta": 5e5, "rope_type": "default"});
    })
    .unwrap();
    assert_eq!((found.n_kv_heads, found.rms_norm_eps), (4, 1e-6));
    assert_eq!((found.rope_theta, found.rope_scaling), (5e5, None));
}

#[test]
fn other_solvers_and_families_are_refused_by_name() {
    for (key, value, expected) in [
        (
            "solver",
            json!("iterative_implicit_euler"),
            "solver: found \"iterative_implicit_euler\"; allowed: explicit_euler. llama.cpp has no ODE solvers",
        ),
        (
            "model_type",
            json!("qwen3"),
            "model_type: found \"qwen3\"; allowed: llama, iiet",
        ),
        (
            "attention_bias",
            json!(true),
            "attention_bias: found true; allowed: false",
        ),
        (
            "residual_multiplier",
            json!(0.22),
            "residual_multiplier: found 0.22; allowed: 1",
        ),
        (
            "rope_scaling",
            json!({"type": "linear", "factor": 2}),
            "allowed: none, or rope_type",
        ),
        (
            "num_key_value_heads",
            json!(3),
            "found 3; allowed: divisors of num_attention_heads, 4",
        ),
        ("head_dim", json!(7), "head_dim: found 7; allowed: even"),
        (
            "num_attention_heads",
            json!(0),
            "num_attention_heads: found 0",
        ),
        (
            "eos_token_id",
            json!(300),
            "eos_token_id: found 300; allowed: below vocab_size, 300",
        ),
        ("rms_norm_eps", json!(0), "rms_norm_eps: found 0"),
    ] {
        let error = read(|keys| keys[key] = value).unwrap_err();
        assert!(error.starts_with("config.json: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    assert!(read(|keys| keys["solver"] = json!("explicit_euler")).is_ok());
}
