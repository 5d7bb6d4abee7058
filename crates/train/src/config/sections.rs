//! Sections that belong to an objective.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};
use toml::{Table, Value};

use crate::{RunConfig, TrainError, TrainingObjective};

/// The sections of every run.
const COMMON: &str = "[model], [data], [train]";

/// Reads the remaining keys of a file; each must be a section.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Table>, D::Error> {
    let rest = BTreeMap::<String, Value>::deserialize(deserializer)?;
    rest.into_iter()
        .map(|(name, value)| match value {
            Value::Table(table) => Ok((name, table)),
            _ => Err(de::Error::custom(format!(
                "unknown key `{name}`; allowed: the sections {COMMON} and that of an objective"
            ))),
        })
        .collect()
}

impl RunConfig {
    /// The objective's section of a configuration, one of those in `known`; none if the
    /// configuration has no such section.
    ///
    /// # Errors
    ///
    /// [`TrainError::Sections`] if a section is not in `known`, or if there is more than one.
    pub fn objective_section<'a>(
        &'a self,
        known: &[&str],
    ) -> Result<Option<(&'a str, &'a Table)>, TrainError> {
        let refuse = |found: &[&str]| TrainError::Sections {
            found: match found {
                [one] => format!("section [{one}] is not known"),
                all => format!("sections [{}] are of several objectives", all.join("], [")),
            },
            allowed: match known {
                [] => COMMON.to_owned(),
                known => format!("{COMMON} and one of [{}]", known.join("], [")),
            },
        };
        let names: Vec<&str> = self.objectives.keys().map(String::as_str).collect();
        let unknown = |name: &&&str| !known.contains(*name);
        match (names.iter().find(unknown), names.as_slice()) {
            (Some(name), _) => Err(refuse(&[name])),
            (None, []) => Ok(None),
            (None, [name]) => Ok(Some((name, &self.objectives[*name]))),
            (None, several) => Err(refuse(several)),
        }
    }

    /// The configuration with the objective's full section, so that two runs can be compared.
    ///
    /// # Errors
    ///
    /// [`TrainError::Sections`] if the configuration has another objective's section,
    /// [`TrainError::Objective`] if its section differs from the objective's.
    pub(crate) fn claimed_by(&self, objective: &dyn TrainingObjective) -> Result<Self, TrainError> {
        let own = objective.section();
        let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
        let found = self.objective_section(&names)?;
        let mut config = self.clone();
        if let Some((name, own)) = own {
            let Some((_, found)) = found else {
                return Err(TrainError::Objective {
                    key: name.to_owned(),
                    found: "missing".into(),
                    expected: format!("a section [{name}]"),
                });
            };
            for (key, value) in found {
                if !own.get(key).is_some_and(|own| same(own, value)) {
                    return Err(TrainError::Objective {
                        key: format!("{name}.{key}"),
                        found: value.to_string(),
                        expected: own.get(key).map_or("missing".into(), Value::to_string),
                    });
                }
            }
            config.objectives.insert(name.to_owned(), own);
        }
        objective.check(&config)?;
        Ok(config)
    }
}

/// Whether two values are equal, with `2` equal to `2.0`.
fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{BatchObjective, BatchTensors, NextToken};

    /// An objective with a section.
    #[derive(Debug)]
    struct Own;

    impl TrainingObjective for Own {
        fn on(&self, _: &Device) -> Box<dyn TrainingObjective> {
            Box::new(Self)
        }

        fn of_batch(&self, batch: &BatchTensors) -> Box<dyn BatchObjective> {
            NextToken.of_batch(batch)
        }

        fn section(&self) -> Option<(&'static str, Table)> {
            let table = "margin = 2.0\nwarm = true";
            Some(("own", toml::from_str(table).unwrap()))
        }
    }

    fn config(more: &str) -> Result<RunConfig, toml::de::Error> {
        toml::from_str(&format!(
            "{more}\n[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 8\n\
             solver = \"explicit_euler\"\n[train]\nsteps = 100\nbatch = 2\nlr = 1e-3\n"
        ))
    }

    #[test]
    fn a_section_belongs_to_exactly_one_objective() {
        let plain = config("").unwrap();
        assert_eq!(plain.claimed_by(&NextToken).unwrap(), plain);
        let own = config("[own]\nmargin = 2").unwrap();
        // Missing keys get their defaults.
        let full = own.claimed_by(&Own).unwrap();
        assert_eq!(full.objectives["own"].len(), 2);
        let again: RunConfig = toml::from_str(&full.to_toml()).unwrap();
        assert_eq!(again, full);
        for (config, objective, expected) in [
            (
                &own,
                &NextToken as &dyn TrainingObjective,
                "the section [own] is not known; allowed: [model], [data], [train]",
            ),
            (
                &plain,
                &Own,
                "own is missing; the objective's is a section [own]",
            ),
            (
                &self::config("[own]\nmargin = 3").unwrap(),
                &Own,
                "own.margin is 3; the objective's is 2.0",
            ),
            (
                &self::config("[own]\n[other]").unwrap(),
                &Own,
                "[other] is not known; allowed: [model], [data], [train] and one of [own]",
            ),
        ] {
            let error = config.claimed_by(objective).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let both = self::config("[a]\n[b]").unwrap();
        let error = both.objective_section(&["a", "b"]).unwrap_err().to_string();
        assert!(error.contains("the sections [a], [b]"), "{error}");
        let error = self::config("lr = 1").unwrap_err().to_string();
        assert!(error.contains("unknown key `lr`"), "{error}");
    }
}
