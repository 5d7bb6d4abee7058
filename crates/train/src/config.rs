//! The configuration file: `[model]`, `[data]`, `[train]`.

mod by_name;
mod differences;
mod drawn_iterations;
mod from_init;
mod model_section;
mod sections;
mod stage;
mod train_section;

use std::collections::BTreeMap;
use std::path::Path;

use iiet_data::DataConfig;
use iiet_files::read_regular_text;
use iiet_model::ModelError;
use iiet_ode::{Options, SolverConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub(crate) use self::differences::differences;
pub use self::drawn_iterations::DrawnIterations;
pub use self::model_section::{EncoderSection, ModelSection};
pub use self::stage::{Stage, override_solver};
pub use self::train_section::{Recompute, Shard, TrainSection, Transfer};
use crate::{TrainError, Vocabulary};

/// A run's configuration, as in its TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// The model.
    pub model: ModelSection,
    /// The data.
    #[serde(default)]
    pub data: DataConfig,
    /// The training.
    pub train: TrainSection,
    /// Every other section. An objective must claim it: see
    /// [`TrainingObjective::section`](crate::TrainingObjective::section).
    #[serde(flatten, deserialize_with = "sections::deserialize")]
    pub objectives: BTreeMap<String, Table>,
}

impl RunConfig {
    /// Reads a file and applies `key=value` assignments to it in order.
    ///
    /// Keys are dotted, `train.lr=1e-3`; a value that is not TOML is taken as a string. With `train.init`
    /// the keys of `[model]` and the tokenizer that are not given are those of that directory.
    ///
    /// # Errors
    ///
    /// [`TrainError::ConfigFile`] with the line, [`TrainError::Set`] with the failing assignment, and the
    /// errors of [`validate`](Self::validate).
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, TrainError> {
        Self::load_given(path, &Table::new(), "", sets)
    }

    /// Reads a file without the keys of `given`, because `owner`, such as "the teacher", determines them.
    ///
    /// # Errors
    ///
    /// The errors of [`load`](Self::load), and an error if the file or an assignment has one of the keys.
    pub fn load_given(
        path: &Path,
        given: &Table,
        owner: &str,
        sets: &[String],
    ) -> Result<Self, TrainError> {
        let text = read_regular_text(path).map_err(TrainError::io(path))?;
        let refuse = |error: toml::de::Error| TrainError::ConfigFile {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        };
        let mut table: Table = toml::from_str(&text).map_err(refuse)?;
        add("", &mut table, given, owner).map_err(|reason| TrainError::ConfigFile {
            path: path.to_owned(),
            reason,
        })?;
        let completed = from_init::complete(&mut table, sets, given.is_empty())?;
        // Parsed from the text itself if possible, because then errors contain the line.
        let mut config: Self = match given.is_empty() && !completed {
            true => toml::from_str(&text),
            false => Value::Table(table.clone()).try_into(),
        }
        .map_err(refuse)?;
        for assignment in sets {
            let refuse = |reason| TrainError::Set {
                assignment: assignment.clone(),
                reason,
            };
            config = set(&mut table, assignment).map_err(refuse)?;
            if !holds(&table, given) {
                let reason = format!("it is determined by {owner}");
                return Err(refuse(reason));
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML, which parses back to the same configuration.
    pub fn to_toml(&self) -> String {
        let written = match self.data.source.task() {
            None => toml::to_string(self),
            Some(_) => toml::to_string(&self.without_keys_about_text()),
        };
        written.expect("invariant: the sections serialise as TOML")
    }

    /// A run on a task as a table, of `[data]` the task alone.
    fn without_keys_about_text(&self) -> Table {
        let mut table = Table::try_from(self).expect("invariant: the sections serialise as TOML");
        if let Some(Value::Table(data)) = table.get_mut("data") {
            data.retain(|key, _| key == "source");
        }
        table
    }

    /// Checks everything that can be checked without the data.
    ///
    /// # Errors
    ///
    /// [`TrainError::Value`], [`TrainError::Model`] or [`TrainError::Data`] with the key, its value and the
    /// allowed values.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.data.check()?;
        let vocab_size = self.data.expected_vocab_size();
        self.model.config(vocab_size, None).validate()?;
        self.train.validate()?;
        if let Some(drawn) = &self.train.iterations {
            let solvers = [Some(&self.model.solver), self.encoder_solver()];
            drawn.validate(&solvers)?;
        }
        if let Some(task) = self.data.source.task() {
            task.check_length(self.model.seq_len)?;
            self.train.validate_of_task()?;
        }
        self.validate_sequences(vocab_size)?;
        let check = |solver: &SolverConfig| solver.check_training().map_err(ModelError::from);
        check(&self.model.solver)?;
        for stage in &self.train.stages {
            let solver = stage.solver(&self.model.solver)?;
            check(&solver)?;
            self.model
                .with_solver(solver)
                .config(vocab_size, None)
                .validate()?;
            if let (None, Some(solver)) = (&self.model.encoder, &stage.encoder) {
                return Err(TrainError::Value {
                    key: "train.stages",
                    found: format!("a list with the encoder {solver}"),
                    allowed: "an encoder's solver only with [model.encoder]".into(),
                });
            }
        }
        if let Some(last) = self.train.stages.last()
            && last.solver(&self.model.solver)? != self.model.solver
        {
            return Err(TrainError::Value {
                key: "train.stages",
                found: format!("{} in the last stage", last.solver),
                allowed: "the last stage must use the solver of [model]".into(),
            });
        }
        Ok(())
    }

    /// The encoder's solver, if there is an encoder.
    fn encoder_solver(&self) -> Option<&SolverConfig> {
        self.model.encoder.as_ref().map(|encoder| &encoder.solver)
    }

    /// Checks what only an encoder-decoder has, and that the data are pairs exactly if the model is one.
    fn validate_sequences(&self, vocab_size: usize) -> Result<(), TrainError> {
        let refuse = |key, found: &str, allowed: &str| {
            Err(TrainError::Value {
                key,
                found: found.to_owned(),
                allowed: allowed.to_owned(),
            })
        };
        let Some(encoder) = &self.model.encoder else {
            if self.data.has_sources() {
                let allowed =
                    "allowed with pairs of source and target: a table with n_layers and solver";
                return refuse("model.encoder", "not given", allowed);
            }
            if let Some(tokens) = self.train.batch_tokens {
                let allowed = "allowed for pairs of source and target alone; give train.batch";
                return refuse("train.batch_tokens", &tokens.to_string(), allowed);
            }
            return Ok(());
        };
        if !self.data.has_sources() {
            let allowed = "an encoder-decoder needs pairs: \"cargo-docs\", { source, target }, or files with \
                           data.source_field and data.target_field";
            return refuse("data.source", "without sources and targets", allowed);
        }
        if !self.model.tie_embeddings {
            let allowed =
                "allowed with an encoder: true; one embedding serves source, target and output";
            return refuse("model.tie_embeddings", "false", allowed);
        }
        let vocabulary = Vocabulary {
            size: vocab_size,
            document_end: None,
        };
        let whole = self.model.sequence_config(vocabulary);
        whole.validate()?;
        encoder.solver.check_training().map_err(ModelError::from)?;
        for stage in &self.train.stages {
            let mut of_stage = whole.clone();
            of_stage.encoder.solver = stage.encoder(&encoder.solver)?;
            of_stage.validate()?;
            of_stage
                .encoder
                .solver
                .check_training()
                .map_err(ModelError::from)?;
        }
        match self.train.stages.last() {
            Some(last) if last.encoder(&encoder.solver)? != encoder.solver => refuse(
                "train.stages",
                "another solver of the encoder in the last stage",
                "the last stage must use the solver of [model.encoder]",
            ),
            _ => Ok(()),
        }
    }
}

/// Adds the keys of `given` to a table that must not have them.
fn add(section: &str, table: &mut Table, given: &Table, owner: &str) -> Result<(), String> {
    for (key, value) in given {
        match (table.get_mut(key), value) {
            (None, _) => {
                table.insert(key.clone(), value.clone());
            }
            (Some(Value::Table(table)), Value::Table(given)) => {
                add(&format!("{section}{key}."), table, given, owner)?;
            }
            (Some(_), _) => {
                return Err(format!(
                    "{section}{key} is given; it is determined by {owner}"
                ));
            }
        }
    }
    Ok(())
}

/// Whether a table contains all values of another.
fn holds(table: &Table, given: &Table) -> bool {
    given
        .iter()
        .all(|(key, value)| match (table.get(key), value) {
            (Some(Value::Table(table)), Value::Table(given)) => holds(table, given),
            (found, value) => found == Some(value),
        })
}

/// The key and the value of `key=value`; a value that is not TOML is a string.
fn parse(assignment: &str) -> Option<(&str, Value)> {
    let (key, value) = assignment.split_once('=')?;
    let parsed = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    Some((key.trim(), value))
}

/// Applies one assignment and parses the result, so that an error names the assignment.
fn set(table: &mut Table, assignment: &str) -> Result<RunConfig, String> {
    let (key, value) = parse(assignment).ok_or("expected key=value, such as train.lr=1e-3")?;
    let mut place = &mut *table;
    let words: Vec<&str> = key.split('.').collect();
    let (leaf, sections) = words
        .split_last()
        .expect("invariant: split yields at least one word");
    for section in sections {
        let inner = place
            .entry(*section)
            .or_insert_with(|| Value::Table(Table::new()));
        if let (&"solver", Value::String(name)) = (section, &*inner) {
            *inner = Value::Table(stage::named(name));
        }
        if let (&"source", Value::String(source)) = (section, &*inner)
            && let Some(task) = source.strip_prefix("task:")
        {
            *inner = Value::Table(Table::from_iter([("task".to_owned(), Value::from(task))]));
        }
        place = inner
            .as_table_mut()
            .ok_or_else(|| format!("{section} is not a section; allowed: model, data, train"))?;
    }
    place.insert((*leaf).to_owned(), value);
    let whole = Value::Table(table.clone());
    whole
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use iiet_ode::IterationSchedule;

    use super::*;
    use std::io::Write;

    const SMALL: &str = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 8\nsolver = \"iterative_implicit_euler\"\n\n[train]\nsteps = 100\nbatch = 2\nlr = 1e-3\n";

    fn load(text: &str, sets: &[&str]) -> Result<RunConfig, TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        RunConfig::load(file.path(), &sets)
    }

    #[test]
    fn configurations_round_trip() {
        let config = load(SMALL, &["train.stages=[{solver='explicit_euler', share=0.75}, {solver='iterative_implicit_euler', share=0.25}]"]).unwrap();
        assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
        assert_eq!(config.train.stage_starts(), [0, 75]);
    }

    #[test]
    fn assignments_override_the_file() {
        let config = load(
            SMALL,
            &[
                "train.lr=0.5",
                "model.solver=implicit_euler",
                "model.solver.iterations=[1, 2]",
                "data.source=corpus.txt",
            ],
        )
        .unwrap();
        assert_eq!(config.train.lr, 0.5);
        assert_eq!(config.model.solver.name(), "implicit_euler");
        let schedule = IterationSchedule::PerLayer(vec![1, 2]);
        assert_eq!(config.model.solver.iterations(), Some(&schedule));
        assert_eq!(
            config.data.source,
            iiet_data::SourceSpec::One("corpus.txt".into())
        );
    }

    #[test]
    fn a_task_is_written_with_its_options_and_without_keys_about_text() {
        let sets = ["data.source=task:group", "data.source.length=[4, 8]"];
        let config = load(SMALL, &sets).unwrap();
        let text = config.to_toml();
        assert!(!text.contains("vocab_size"), "{text}");
        assert!(text.contains("group = \"S3\""), "{text}");
        assert_eq!(load(&text, &[]).unwrap(), config);
        for (sets, expected) in [
            (vec!["data.source=task:sorting"], "task:group, task:hops"),
            (
                vec!["data.source=task:group"],
                "model.seq_len = 8 is not allowed; allowed: at least 32",
            ),
            (vec![sets[0], "data.source.size=3"], "unknown field `size`"),
            (
                vec![sets[0], sets[1], "data.vocab_size=300"],
                "data.vocab_size = 300",
            ),
            (
                vec![sets[0], sets[1], "train.sample_every=5"],
                "train.sample_every is 5; allowed: 0",
            ),
        ] {
            let error = load(SMALL, &sets).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn errors_name_the_key_or_the_line() {
        for (text, sets, expected) in [
            (
                SMALL.replace("d_ff", "d_fff"),
                vec![],
                "unknown field `d_fff`",
            ),
            (SMALL.replace("d_ff", "d_fff"), vec![], "line 3"),
            (SMALL.replace("= 16", "= -1"), vec![], "line 2"),
            (
                SMALL.replace("n_heads = 2", "n_heads = 0"),
                vec![],
                "n_heads (num_attention_heads) is 0",
            ),
            (
                SMALL.replace("n_heads = 2", "n_heads = 3"),
                vec![],
                "it must be an even multiple of n_heads",
            ),
            (
                SMALL.replace("steps = 100", ""),
                vec![],
                "missing field `steps`",
            ),
            (
                SMALL.into(),
                vec!["train.lrr=1"],
                "--set train.lrr=1: unknown field `lrr`",
            ),
            (
                SMALL.into(),
                vec!["train.lr=1", "model.solver=heun"],
                "--set model.solver=heun: there is no solver \"heun\"; allowed: explicit_euler",
            ),
            (
                SMALL.into(),
                vec!["train.lr"],
                "--set train.lr: expected key=value",
            ),
            (
                SMALL.into(),
                vec!["train.lr.x=1"],
                "--set train.lr.x=1: lr is not a section",
            ),
            (
                SMALL.into(),
                vec!["train.lr=nan"],
                "train.lr is NaN; allowed: finite and above 0",
            ),
            (
                SMALL.into(),
                vec!["model.solver.predictor_order=2"],
                "unknown field `predictor_order`, expected one of `iterations`, `history`",
            ),
            (
                SMALL.into(),
                vec!["train.steps=0"],
                "train.steps is 0; allowed: 1 to 2^40",
            ),
            (
                SMALL.into(),
                vec!["train.accumulation=16777216"],
                "train.accumulation is 16777216; allowed: 1 to 2^20",
            ),
            (
                SMALL.into(),
                vec!["train.warmup=101"],
                "train.warmup is 101; allowed: at most train.steps, 100",
            ),
            (
                SMALL.into(),
                vec!["model.solver.iterations=[1]"],
                "iterations lists 1 layers, the model has 2",
            ),
            (
                SMALL.into(),
                vec!["train.stages=[{solver='explicit_euler', share=0.5}]"],
                "shares must be above 0 and sum to 1",
            ),
            (
                SMALL.into(),
                vec!["train.stages=[{solver='explicit_euler', share=1.0}]"],
                "the last stage must use the solver of [model]",
            ),
        ] {
            let error = load(&text, &sets).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
