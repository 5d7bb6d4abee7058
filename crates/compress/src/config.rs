//! The key `quantization_config` of config.json, as compressed-tensors writes it and transformers and vLLM read it.
//!
//! Read are configurations with one group of weights in the format `pack-quantized`: integers of 4 or 8 bits in
//! groups along the input. Inputs of products may be rounded to 8 bits in the same groups, with scales that are found at
//! run time (`dynamic`). Unknown keys are errors, for they could change the meaning.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::CompressError;
use crate::scheme::{Activations, Scheme};

/// The format's name.
pub const FORMAT: &str = "pack-quantized";

/// How a model's projections are quantised, and which are not.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationConfig {
    /// How the matrices are quantised.
    pub scheme: Scheme,
    /// How their inputs are treated: `input_activations`.
    pub activations: Activations,
    /// Whether the inputs were quantised in order of activation (`actorder: "weight"`). The stored tensors are the
    /// same.
    pub activation_order: bool,
    /// Whether the embedding is quantised, too. transformers does not read such models.
    pub embeddings: bool,
    /// Modules that are not quantised: names, or with the prefix `re:` regular expressions. Readers need not
    /// interpret them: a quantised module has a `weight_packed` in the file, another one a `weight`.
    pub ignore: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    quant_method: Value,
    format: Value,
    config_groups: Map<String, Value>,
    #[serde(default)]
    ignore: Option<Vec<String>>,
    #[serde(default)]
    quantization_status: Value,
    #[serde(default)]
    kv_cache_scheme: Value,
    #[serde(default)]
    moe_sparsity_config: Value,
    #[serde(default)]
    sparsity_config: Value,
    #[serde(default)]
    transform_config: Value,
    // Information only.
    #[serde(default, rename = "global_compression_ratio")]
    _ratio: Value,
    #[serde(default, rename = "version")]
    _version: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<String>,
    weights: Rounding,
    #[serde(default)]
    input_activations: Value,
    #[serde(default)]
    output_activations: Value,
    #[serde(default)]
    format: Value,
}

/// `weights`, and `input_activations`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rounding {
    num_bits: Value,
    group_size: Value,
    symmetric: Value,
    #[serde(default = "int", rename = "type")]
    kind: Value,
    strategy: Value,
    #[serde(default)]
    dynamic: Value,
    #[serde(default)]
    actorder: Value,
    #[serde(default)]
    block_structure: Value,
    // How the scales were chosen, and types at quantisation.
    #[serde(default, rename = "observer")]
    _observer: Value,
    #[serde(default, rename = "observer_kwargs")]
    _observer_kwargs: Value,
    #[serde(default, rename = "scale_dtype")]
    _scale_dtype: Value,
    #[serde(default, rename = "zp_dtype")]
    _zp_dtype: Value,
}

fn int() -> Value {
    json!("int")
}

impl QuantizationConfig {
    /// The value of the key `quantization_config`.
    pub fn to_json(&self) -> Value {
        let mut weights = json!({
            "num_bits": self.scheme.bits().count(),
            "type": "int",
            "symmetric": self.scheme.symmetric(),
            "group_size": self.scheme.group(),
            "strategy": "group",
            "dynamic": false,
        });
        if self.activation_order {
            weights["actorder"] = json!("weight");
        }
        json!({
            "config_groups": {
                "group_0": {
                    "targets": self.targets(),
                    "weights": weights,
                    "input_activations": self.inputs(),
                    "output_activations": null,
                    "format": null,
                },
            },
            "quant_method": "compressed-tensors",
            "kv_cache_scheme": null,
            "format": FORMAT,
            "quantization_status": "compressed",
            "global_compression_ratio": null,
            "ignore": self.ignore,
            "moe_sparsity_config": null,
        })
    }

    /// Reads the value of the key `quantization_config`.
    ///
    /// # Errors
    ///
    /// For what this crate does not support, with the key and the values allowed.
    pub fn from_json(value: &Value) -> Result<Self, CompressError> {
        let config: Config = read("", value, "the keys of compressed-tensors")?;
        check(
            "quant_method",
            &config.quant_method,
            &["\"compressed-tensors\""],
        )?;
        check("format", &config.format, &["\"pack-quantized\""])?;
        let status = ["null", "\"compressed\"", "\"frozen\""];
        check("quantization_status", &config.quantization_status, &status)?;
        check("kv_cache_scheme", &config.kv_cache_scheme, &["null"])?;
        check(
            "moe_sparsity_config",
            &config.moe_sparsity_config,
            &["null"],
        )?;
        check("sparsity_config", &config.sparsity_config, &["null", "{}"])?;
        check(
            "transform_config",
            &config.transform_config,
            &["null", "{}"],
        )?;
        let mut groups = config.config_groups.iter();
        let (Some((name, group)), None) = (groups.next(), groups.next()) else {
            return Err(error(
                "config_groups",
                format!("of {} entries", config.config_groups.len()),
                "one entry",
            ));
        };
        let path = |key: &str| format!("config_groups.{name}{key}");
        let group: Group = read(
            &path(""),
            group,
            "a scheme of compressed-tensors with weights",
        )?;
        let embeddings = group.targets == Self::TARGETS;
        if !embeddings && group.targets != Self::TARGETS[..1] {
            let found = format!("{:?}", group.targets);
            return Err(error(path(".targets"), found, "[\"Linear\"]"));
        }
        check(
            path(".output_activations"),
            &group.output_activations,
            &["null"],
        )?;
        check(
            path(".format"),
            &group.format,
            &["null", "\"pack-quantized\""],
        )?;
        let weights = group.weights;
        let orders = ["null", "false", "\"weight\"", "\"static\""];
        weights.check(
            &path(".weights"),
            [
                ("dynamic", &weights.dynamic, &["false", "null"]),
                ("actorder", &weights.actorder, &orders),
            ],
        )?;
        let scheme = weights.scheme(&path(".weights"))?;
        let inputs = path(".input_activations");
        Ok(Self {
            scheme,
            activations: activations(&inputs, &group.input_activations, scheme)?,
            activation_order: weights.actorder.is_string(),
            embeddings,
            ignore: config.ignore.unwrap_or_default(),
        })
    }

    /// The value of the key `input_activations`.
    fn inputs(&self) -> Value {
        match self.activations.bits() {
            None => Value::Null,
            Some(bits) => json!({
                "num_bits": bits,
                "type": "int",
                "symmetric": true,
                "group_size": self.scheme.group(),
                "strategy": "group",
                "dynamic": true,
            }),
        }
    }

    /// The kinds of modules.
    const TARGETS: [&'static str; 2] = ["Linear", "Embedding"];

    fn targets(&self) -> &'static [&'static str] {
        match self.embeddings {
            true => &Self::TARGETS,
            false => &Self::TARGETS[..1],
        }
    }
}

impl Serialize for QuantizationConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// How inputs are treated according to `input_activations`.
fn activations(path: &str, value: &Value, scheme: Scheme) -> Result<Activations, CompressError> {
    if value.is_null() {
        return Ok(Activations::F32);
    }
    let inputs: Rounding = read(path, value, "null or a scheme of compressed-tensors")?;
    let size = match scheme.group() {
        32 => "32",
        64 => "64",
        _ => "128",
    };
    inputs.check(
        path,
        [
            ("num_bits", &inputs.num_bits, &["8"]),
            ("symmetric", &inputs.symmetric, &["true"]),
            // That of the weights.
            ("group_size", &inputs.group_size, &[size]),
            ("dynamic", &inputs.dynamic, &["true"]),
            ("actorder", &inputs.actorder, &["null"]),
        ],
    )?;
    Ok(Activations::Int8)
}

impl Rounding {
    /// Rejects what neither weights nor inputs may be, and values that are not among those allowed.
    fn check<const N: usize>(
        &self,
        path: &str,
        others: [(&str, &Value, &[&'static str]); N],
    ) -> Result<(), CompressError> {
        let both: [(&str, &Value, &[&'static str]); 3] = [
            ("type", &self.kind, &["\"int\""]),
            ("strategy", &self.strategy, &["\"group\""]),
            ("block_structure", &self.block_structure, &["null"]),
        ];
        both.into_iter()
            .chain(others)
            .try_for_each(|(key, value, allowed)| check(format!("{path}.{key}"), value, allowed))
    }

    /// The scheme of weights.
    fn scheme(&self, path: &str) -> Result<Scheme, CompressError> {
        let key = |name| format!("{path}.{name}");
        Scheme::new(
            read(&key("num_bits"), &self.num_bits, "4 and 8")?,
            read(&key("group_size"), &self.group_size, "32, 64 and 128")?,
            read(&key("symmetric"), &self.symmetric, "true and false")?,
        )
    }
}

fn read<'a, T: Deserialize<'a>>(
    key: &str,
    value: &'a Value,
    allowed: &'static str,
) -> Result<T, CompressError> {
    T::deserialize(value).map_err(|e| error(key, format!("not readable ({e})"), allowed))
}

/// Rejects a value that is not one of the allowed ones, in JSON.
fn check(
    key: impl Into<String>,
    value: &Value,
    allowed: &[&'static str],
) -> Result<(), CompressError> {
    let found = value.to_string();
    match allowed.contains(&found.as_str()) {
        true => Ok(()),
        // The first is the usual one.
        false => Err(error(key, found, allowed[0])),
    }
}

fn error(key: impl Into<String>, found: String, allowed: &'static str) -> CompressError {
    let key = key.into();
    CompressError::Config {
        key: if key.is_empty() {
            "the value".into()
        } else {
            key
        },
        found,
        allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> QuantizationConfig {
        QuantizationConfig {
            scheme: Scheme::new(4, 64, false).unwrap(),
            activations: Activations::F32,
            activation_order: true,
            embeddings: false,
            ignore: vec!["lm_head".into()],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let value = config().to_json();
        assert_eq!(QuantizationConfig::from_json(&value), Ok(config()));
        let with_embeddings = QuantizationConfig {
            embeddings: true,
            ..config()
        };
        let value = with_embeddings.to_json();
        assert_eq!(QuantizationConfig::from_json(&value), Ok(with_embeddings));
        let rounded = QuantizationConfig {
            activations: Activations::Int8,
            ..config()
        };
        let value = rounded.to_json();
        assert_eq!(QuantizationConfig::from_json(&value), Ok(rounded));
    }

    #[test]
    fn what_would_change_the_meaning_is_rejected() {
        for (path, found, message) in [
            (
                "/format",
                json!("int-quantized"),
                "quantization_config: format is \"int-quantized\"; allowed: \"pack-quantized\"",
            ),
            (
                "/config_groups/group_0/weights/num_bits",
                json!(3),
                "3 bits per weight; allowed are 4 and 8",
            ),
            (
                "/config_groups/group_0/weights/strategy",
                json!("channel"),
                "quantization_config: config_groups.group_0.weights.strategy is \"channel\"; allowed: \"group\"",
            ),
            (
                "/config_groups/group_0/input_activations",
                json!({"num_bits": 8}),
                "quantization_config: config_groups.group_0.input_activations is not readable (missing field \
                 `group_size`); allowed: null or a scheme of compressed-tensors",
            ),
            (
                "/config_groups/group_0/weights/num_bits",
                json!(-4),
                "quantization_config: config_groups.group_0.weights.num_bits is not readable (invalid value: integer \
                 `-4`, expected u64); allowed: 4 and 8",
            ),
        ] {
            let mut value = config().to_json();
            *value.pointer_mut(path).unwrap() = found;
            let error = QuantizationConfig::from_json(&value).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let rounded = QuantizationConfig {
            activations: Activations::Int8,
            ..config()
        };
        for (key, found, allowed) in [
            ("num_bits", json!(4), "8"),
            ("strategy", json!("token"), "\"group\""),
            ("group_size", json!(32), "64"),
            ("dynamic", json!(false), "true"),
            ("symmetric", json!(false), "true"),
        ] {
            let mut value = rounded.to_json();
            value["config_groups"]["group_0"]["input_activations"][key] = found.clone();
            let error = QuantizationConfig::from_json(&value).unwrap_err();
            let place = format!("config_groups.group_0.input_activations.{key}");
            let message = format!("quantization_config: {place} is {found}; allowed: {allowed}");
            assert_eq!(error.to_string(), message);
        }
        let mut value = config().to_json();
        value["new_key"] = json!(1);
        assert!(QuantizationConfig::from_json(&value).is_err());
        assert!(QuantizationConfig::from_json(&json!([])).is_err());
    }
}
