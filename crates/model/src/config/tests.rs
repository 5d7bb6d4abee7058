//! `config.json` of LLaMA and IIET models, written and read.

use std::path::Path;

use iiet_blocks::Llama3Scaling;
use iiet_ode::{IterationSchedule, Options, SolverConfig};

use super::*;

const LLAMA: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512,
    "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-05, "hidden_act": "silu", "torch_dtype": "float32",
    "rope_scaling": null, "eos_token_id": 2, "bos_token_id": 1, "use_cache": true
}"#;

fn read(text: &str) -> Result<ModelConfig, ModelError> {
    ModelConfig::from_json(text, Path::new("config.json"))
}

#[test]
fn a_llama_config_is_explicit_euler() {
    let config = read(LLAMA).unwrap();
    assert_eq!(config.solver.name(), "explicit_euler");
    assert_eq!(
        (
            config.block.n_heads,
            config.block.n_kv_heads,
            config.block.rope_theta
        ),
        (8, 4, 1e4)
    );
    assert_eq!(
        (config.bos_token_id, config.eos_token_ids),
        (Some(1), vec![2])
    );
    assert!(!config.tie_embeddings);
}

#[test]
fn several_eos_tokens_and_scaled_frequencies_round_trip() {
    let scaling = r#""rope_scaling": {"rope_type": "llama3", "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}"#;
    let text = LLAMA
        .replace("\"rope_scaling\": null", scaling)
        .replace("\"eos_token_id\": 2", "\"eos_token_id\": [2, 7]");
    let config = read(&text).unwrap();
    assert_eq!(config.eos_token_ids, [2, 7]);
    let expected = Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    assert_eq!(config.block.rope_scaling, Some(expected));
    assert_eq!(read(&config.to_json()).unwrap(), config);
    // Newer checkpoints store the same under another key, next to the base.
    let renamed = text.replace(
        "\"rope_scaling\": {",
        "\"rope_parameters\": {\"rope_theta\": 5e5, ",
    );
    let config = read(&renamed).unwrap();
    assert_eq!(
        (config.block.rope_scaling, config.block.rope_theta),
        (Some(expected), 5e5)
    );
}

#[test]
fn configurations_round_trip() {
    let mut config = read(LLAMA).unwrap();
    for name in SolverConfig::NAMES {
        let schedule = IterationSchedule::PerLayer(vec![3, 1, 0, 2, 2]);
        config.solver = SolverConfig::named(name).unwrap().with_iterations(schedule);
        let again = read(&config.to_json()).unwrap();
        assert_eq!(again, config, "{name}");
        assert_eq!(again.to_json(), config.to_json());
    }
}

#[test]
fn options_of_other_solvers_are_ignored_like_unknown_keys() {
    // Directories written by earlier versions have predictor_order beside iterations.
    let text = LLAMA.replace(
        "\"use_cache\": true",
        "\"solver\": \"iterative_implicit_euler\", \"iterations\": 2, \"predictor_order\": 2",
    );
    let schedule = IterationSchedule::Uniform(2);
    assert_eq!(read(&text).unwrap().solver.iterations(), Some(&schedule));
}

/// Keys that are not there have the defaults of the family's class in `transformers` 5.24.
#[test]
fn families_have_their_defaults() {
    let of = |model_type: &str, without: &str, more: &str| {
        let text = LLAMA
            .replace(
                "\"model_type\": \"llama\"",
                &format!("\"model_type\": \"{model_type}\"{more}"),
            )
            .replace(without, "");
        read(&text)
    };
    let kv = "\"num_key_value_heads\": 4, ";
    let window = ", \"sliding_window\": null";
    assert_eq!(of("mistral", kv, window).unwrap().block.n_kv_heads, 8);
    assert_eq!(of("llama", kv, "").unwrap().block.n_kv_heads, 8);
    // 32 key/value heads of 8 query heads cannot be.
    let error = of("qwen2", kv, "").unwrap_err().to_string();
    assert!(
        error.contains("n_kv_heads (num_key_value_heads) is 32"),
        "{error}"
    );
    let null = ", \"num_key_value_heads\": null";
    assert_eq!(of("qwen2", kv, null).unwrap().block.n_kv_heads, 8);
    assert_eq!(of("qwen3", "", "").unwrap().block.head_dim, Some(128));
    let narrow = of("qwen3", "", ", \"head_dim\": 8").unwrap();
    // As the sizes give it: 64 / 8.
    assert_eq!((narrow.block.head_dim, narrow.block.qk_norm), (None, true));
    // A window that is not there is 4096 for Mistral, longer than this context; Qwen's is not used.
    assert!(of("mistral", "", "").is_ok());
    assert!(of("qwen2", "", ", \"sliding_window\": 4").is_ok());
}

#[test]
fn unsupported_features_are_errors_naming_the_key() {
    for (from, to, expected) in [
        (
            "\"llama\"",
            "\"gpt2\"",
            "config.json: model_type is gpt2; allowed: llama, iiet, mistral, qwen2, qwen3",
        ),
        (
            "\"silu\"",
            "\"gelu\"",
            "config.json: hidden_act is gelu; allowed: silu",
        ),
        (
            "\"model_type\": \"llama\"",
            "\"model_type\": \"mistral\", \"sliding_window\": 128",
            "sliding_window is 128; attention reaches over the whole context here, which is the same up to 128 tokens: lower max_position_embeddings to 128",
        ),
        (
            "\"model_type\": \"llama\"",
            "\"model_type\": \"qwen2\", \"sliding_window\": 128, \"use_sliding_window\": true",
            "sliding_window is 128",
        ),
        (
            "\"use_cache\": true",
            "\"layer_types\": [\"full_attention\", \"linear_attention\"]",
            "layer_types is linear_attention; allowed: full_attention",
        ),
        (
            "\"rope_scaling\": null",
            "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}",
            "rope_scaling is {\"factor\":2.0,\"type\":\"linear\"}; allowed: none, or rope_type default or llama3",
        ),
        (
            "\"rope_scaling\": null",
            "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}",
            "rope_scaling is {\"factor\":8.0,\"rope_type\":\"llama3\"}; llama3 needs the numbers",
        ),
        (
            "\"eos_token_id\": 2",
            "\"eos_token_id\": \"</s>\"",
            "eos_token_id has another type; allowed: a token id, or a list of them",
        ),
        ("\"use_cache\"", "\"mlp_bias\"", "mlp_bias is true"),
        (
            "\"use_cache\": true",
            "\"solver\": \"leapfrog\"",
            "there is no solver \"leapfrog\"; allowed: explicit_euler",
        ),
    ] {
        let error = read(&LLAMA.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn invalid_sizes_are_errors() {
    for (from, to, expected) in [
        (
            "\"vocab_size\": 512",
            "\"vocab_size\": 0",
            "vocab_size is 0; allowed: 1 to 1048576",
        ),
        (
            "\"num_attention_heads\": 8",
            "\"num_attention_heads\": 0",
            "n_heads (num_attention_heads) is 0",
        ),
        (
            "\"num_attention_heads\": 8",
            "\"num_attention_heads\": 7",
            "it must be an even multiple of n_heads",
        ),
        (
            "\"num_key_value_heads\": 4",
            "\"num_key_value_heads\": 3",
            "it must divide n_heads",
        ),
        (
            "\"use_cache\": true",
            "\"head_dim\": 15",
            "head_dim is 15; allowed: an even number from 2 to 131072",
        ),
        (
            "\"use_cache\": true",
            "\"head_dim\": 262144",
            "head_dim is 262144; allowed: an even number from 2 to 131072",
        ),
        (
            "\"rope_scaling\": null",
            "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 4.0, \"high_freq_factor\": 1.0, \"original_max_position_embeddings\": 256}",
            "rope_scaling is llama3 with factor 8, low_freq_factor 4, high_freq_factor 1, original_max_position_embeddings 256; its numbers must be positive",
        ),
        (
            "\"hidden_size\": 64",
            "\"hidden_size\": 18446744073709551615",
            "allowed: 1 to 1048576",
        ),
        (
            "\"eos_token_id\": 2",
            "\"eos_token_id\": 512",
            "eos_token_id is 512; allowed: below vocab_size, 512",
        ),
        (
            "1e-05",
            "-1",
            "rms_norm_eps is -1.0; allowed: above 0, at most 1e3",
        ),
        (
            "\"use_cache\": true",
            "\"initializer_range\": 1e308",
            "initializer_range is 1e308; allowed: above 0, at most 1e3",
        ),
        (
            "\"use_cache\": true",
            "\"solver\": \"implicit_euler\", \"iterations\": 4294967296",
            "iterations is 4294967296 in a layer; allowed: 0 to 4096",
        ),
        (
            "\"use_cache\": true",
            "\"solver\": \"implicit_euler\", \"iterations\": [1, 2]",
            "iterations lists 2 layers, the model has 5",
        ),
        (
            "\"use_cache\": true",
            "\"solver\": \"runge_kutta\", \"predictor_order\": 3",
            "predictor_order is 3; allowed: 2, 4",
        ),
    ] {
        let error = read(&LLAMA.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_the_published_models_do_not_have_is_written_only_where_it_is_used() {
    let mut config = read(LLAMA).unwrap();
    config.solver = SolverConfig::named("iterative_implicit_euler").unwrap();
    let plain: serde_json::Value = serde_json::from_str(&config.to_json()).unwrap();
    let later = ["history", "normalise_first", "gate", "residual_multiplier"];
    assert!(later.iter().all(|key| plain.get(key).is_none()), "{plain}");

    let mut text = plain;
    for (key, value) in later.into_iter().zip([
        serde_json::json!("textbook"),
        true.into(),
        0.25.into(),
        0.5.into(),
    ]) {
        text[key] = value;
    }
    let config = read(&text.to_string()).unwrap();
    let written: serde_json::Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(written, text);
    // A layer with scaled branches is none that other programs know as LLaMA's.
    let scaled = LLAMA.replace("\"use_cache\": true", "\"residual_multiplier\": 0.5");
    let written = read(&scaled).unwrap().to_json();
    assert!(written.contains("IietForCausalLM"), "{written}");
    let scaled = LLAMA.replace("\"use_cache\": true", "\"residual_multiplier\": 0");
    let error = read(&scaled).unwrap_err().to_string();
    let expected = "residual_multiplier is 0.0; allowed: above 0, at most 1e3";
    assert!(error.contains(expected), "{error}");
}
