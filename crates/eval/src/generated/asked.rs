//! Which generated task is asked, at which difficulties.

use std::path::PathBuf;

use iiet_data::{Difficulties, TaskSpec};
use serde_json::Value;

use crate::error::EvalError;
use crate::task::Source;
use crate::tasks::task;

/// A generated task as it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedGenerated {
    /// The task with its options.
    pub spec: TaskSpec,
    /// The difficulties that the first of the models was trained on, where that is known.
    pub trained: Option<Difficulties>,
    /// The difficulties that are asked, the least first.
    pub difficulties: Vec<usize>,
}

impl AskedGenerated {
    /// A task at difficulties around those of its options: powers of two up to the greatest, and quarters
    /// up to twice as much.
    ///
    /// # Errors
    /// [`EvalError::Data`] if the options are impossible.
    pub fn new(spec: TaskSpec) -> Result<Self, EvalError> {
        spec.check()?;
        let (least, greatest) = (spec.difficulties().from(), spec.difficulties().to());
        let powers = (0..usize::BITS).map(|power| 1 << power);
        let quarters = [3, 4, 5, 6, 8].map(|quarters| quarters * greatest / 4);
        let mut difficulties: Vec<usize> = powers
            .take_while(|power| *power <= greatest)
            .chain(quarters)
            .chain([least])
            .filter(|difficulty| at(&spec, *difficulty).is_ok())
            .collect();
        difficulties.sort();
        difficulties.dedup();
        Ok(Self {
            spec,
            trained: None,
            difficulties,
        })
    }

    /// The same at these difficulties.
    ///
    /// # Errors
    /// [`EvalError::Data`] for one that the task does not have.
    pub fn with_difficulties(mut self, difficulties: &[usize]) -> Result<Self, EvalError> {
        difficulties
            .iter()
            .try_for_each(|difficulty| at(&self.spec, *difficulty))?;
        self.difficulties = difficulties.to_vec();
        self.difficulties.sort();
        self.difficulties.dedup();
        Ok(self)
    }
}

/// Checks a difficulty.
fn at(spec: &TaskSpec, difficulty: usize) -> Result<(), EvalError> {
    Ok(only(spec, difficulty).check()?)
}

/// The task at one difficulty.
pub(super) fn only(spec: &TaskSpec, difficulty: usize) -> TaskSpec {
    let difficulty = u32::try_from(difficulty).unwrap_or(u32::MAX);
    spec.clone()
        .with_difficulties(Difficulties::One(difficulty))
}

/// The generated tasks among `names`, with the options of the models that were trained on them, else
/// the defaults. `sets` are assignments such as `group.length=64`.
///
/// # Errors
/// [`EvalError::UnknownTask`]; [`EvalError::Assignment`] for one that names no such task or option;
/// [`EvalError::Trained`] if the models were trained on different tasks of one name; and
/// [`EvalError::Data`].
pub fn asked_generated(
    names: &[String],
    models: &[PathBuf],
    sets: &[String],
    difficulties: Option<&[usize]>,
) -> Result<Vec<AskedGenerated>, EvalError> {
    let mut asked = Vec::new();
    for name in names {
        if matches!(task(name)?.source, Source::Generated) {
            let of_task = |set: &&String| {
                set.split_once('.')
                    .is_some_and(|(section, _)| section == name)
            };
            let own: Vec<&String> = sets.iter().filter(of_task).collect();
            asked.push(one(name, models, &own, difficulties)?);
        }
    }
    let belongs = |set: &&String| {
        let section = set.split_once('.').map_or("", |(section, _)| section);
        asked.iter().any(|asked| asked.spec.name() == section)
    };
    match sets.iter().find(|set| !belongs(set)) {
        Some(set) => Err(EvalError::Assignment {
            assignment: set.clone(),
            reason:
                "expected TASK.KEY=VALUE of a generated task that is asked, such as group.length=64"
                    .to_owned(),
        }),
        None => Ok(asked),
    }
}

fn one(
    name: &str,
    models: &[PathBuf],
    sets: &[&String],
    difficulties: Option<&[usize]>,
) -> Result<AskedGenerated, EvalError> {
    let mut trained = Vec::new();
    for model in models {
        let spec = TaskSpec::read(model)?.filter(|spec| spec.name() == name);
        trained.extend(spec.map(|spec| (model, spec)));
    }
    let mut spec = match trained.first() {
        Some((_, spec)) => spec.clone(),
        None => TaskSpec::named(name)?,
    };
    let known = trained.first().map(|(_, spec)| spec.difficulties());
    for set in sets {
        spec = assigned(&spec, set)?;
    }
    // Difficulties may differ; that the question is the same must be seen to by whoever overrides.
    let alike = |other: &TaskSpec| other.clone().with_difficulties(spec.difficulties()) == spec;
    if let (true, Some((first, _)), Some((other, _))) = (
        sets.is_empty(),
        trained.first(),
        trained.iter().find(|(_, other)| !alike(other)),
    ) {
        return Err(EvalError::Trained {
            task: name.to_owned(),
            first: first.to_path_buf(),
            second: other.to_path_buf(),
        });
    }
    let asked = AskedGenerated {
        trained: known,
        ..AskedGenerated::new(spec)?
    };
    match difficulties {
        Some(difficulties) => asked.with_difficulties(difficulties),
        None => Ok(asked),
    }
}

/// The options after `TASK.KEY=VALUE`; a value that is not JSON is a text.
fn assigned(spec: &TaskSpec, set: &str) -> Result<TaskSpec, EvalError> {
    let refuse = |reason: String| EvalError::Assignment {
        assignment: set.to_owned(),
        reason,
    };
    let key = set.split_once('.').map_or("", |(_, key)| key);
    let (key, value) = key
        .split_once('=')
        .ok_or_else(|| refuse("expected TASK.KEY=VALUE".to_owned()))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    let mut json = serde_json::to_value(spec).map_err(|error| refuse(error.to_string()))?;
    json[key.trim()] = value;
    serde_json::from_value(json).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        names: &[&str],
        models: &[PathBuf],
        sets: &[&str],
    ) -> Result<AskedGenerated, EvalError> {
        let owned = |texts: &[&str]| texts.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        Ok(asked_generated(&owned(names), models, &owned(sets), None)?.remove(0))
    }

    #[test]
    fn options_come_from_the_models_and_may_be_overridden() {
        let folder = tempfile::tempdir().unwrap();
        let model = |name: &str, json: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("task.json"), json).unwrap();
            path
        };
        let a5 = model(
            "a",
            r#"{"task": "group", "group": "A5", "length": [8, 16]}"#,
        );
        let longer = model("b", r#"{"task": "group", "group": "A5", "length": 64}"#);
        let s3 = model("c", r#"{"task": "group", "group": "S3", "length": 16}"#);
        let hops = model("d", r#"{"task": "hops"}"#);

        let found = asked(&["group"], &[a5.clone(), longer], &[]).unwrap();
        assert_eq!(found.trained, Some(Difficulties::Range([8, 16])));
        assert_eq!(found.difficulties, [2, 4, 8, 12, 16, 20, 24, 32]);
        let found = asked(&["group"], &[hops], &["group.length=4"]).unwrap();
        assert_eq!(
            (found.trained, &found.difficulties[..]),
            (None, &[4, 5, 6, 8][..])
        );
        let error = asked(&["group"], &[a5.clone(), s3.clone()], &[]).unwrap_err();
        assert!(error.to_string().contains("--set"), "{error}");
        let found = asked(&["group"], &[a5.clone(), s3], &["group.group=S5"]).unwrap();
        assert!(serde_json::to_string(&found.spec).unwrap().contains("S5"));

        for (set, expected) in [
            ("group.size=3", "unknown field `size`"),
            (
                "hops.hops=3",
                "expected TASK.KEY=VALUE of a generated task that is asked",
            ),
            ("length=3", "expected TASK.KEY=VALUE"),
            ("group.length", "expected TASK.KEY=VALUE"),
            ("group.length=2", "2 has 36"),
        ] {
            let s3 = [folder.path().join("c")];
            let error = asked(&["group"], &s3, &[set]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let names = ["hops".to_owned()];
        let error = asked_generated(&names, &[], &[], Some(&[3, 99])).unwrap_err();
        assert!(
            error.to_string().contains("data.source.hops = 99"),
            "{error}"
        );
    }
}
