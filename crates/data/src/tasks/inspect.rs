//! A look at a task's examples.

use std::fmt;

use serde::Serialize;

use super::{Part, TaskExamples, TaskSpec};
use crate::error::DataError;

/// Examples shown of each part.
const SHOWN: u64 = 3;

/// What [`inspect_task`] found.
#[derive(Clone, Debug, Serialize)]
pub struct TaskInspection {
    /// The task with all its options.
    pub task: TaskSpec,
    /// Tokens of its vocabulary.
    pub vocab_size: usize,
    /// Tokens of the longest example.
    pub longest: usize,
    /// The first training examples of the seed.
    pub training: Vec<ShownExample>,
    /// Examples that are validated on.
    pub held_out: Vec<ShownExample>,
}

/// An example in symbols.
#[derive(Clone, Debug, Serialize)]
pub struct ShownExample {
    /// Its difficulty.
    pub difficulty: usize,
    /// The symbols read.
    pub inputs: Vec<String>,
    /// The symbol to predict at each place; none where the prediction does not count.
    pub targets: Vec<Option<String>>,
}

/// Makes a few examples of a task: the training examples are those of `seed`.
///
/// # Errors
/// [`DataError::Config`] for impossible options.
pub fn inspect_task(spec: &TaskSpec, seed: u64) -> Result<TaskInspection, DataError> {
    let symbols = spec.task().symbols();
    let symbol = |id: u32| {
        let symbol = symbols.get(id as usize).cloned();
        symbol.unwrap_or_else(|| crate::tokenizer::DOCUMENT_END.to_owned())
    };
    let shown = |part: Part, seed: u64| -> Result<Vec<ShownExample>, DataError> {
        let examples = TaskExamples::new(spec.clone(), part, spec.longest())?;
        let show = |index| {
            let (difficulty, example) = examples.example(seed, index)?;
            let targets = example.targets.iter().zip(&example.weights);
            Ok(ShownExample {
                difficulty,
                inputs: example.inputs.iter().map(|id| symbol(*id)).collect(),
                targets: targets
                    .map(|(id, weight)| (*weight > 0.0).then(|| symbol(*id)))
                    .collect(),
            })
        };
        (0..SHOWN).map(show).collect()
    };
    Ok(TaskInspection {
        vocab_size: spec.vocab_size(),
        longest: spec.longest(),
        training: shown(Part::Training, seed)?,
        held_out: shown(Part::HeldOut, 0)?,
        task: spec.clone(),
    })
}

impl fmt::Display for TaskInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = serde_json::to_string(&self.task).map_err(|_| fmt::Error)?;
        writeln!(f, "task              {options}")?;
        writeln!(f, "vocabulary        {} tokens", self.vocab_size)?;
        writeln!(f, "longest example   {} tokens", self.longest)?;
        for (part, examples) in [("training", &self.training), ("held out", &self.held_out)] {
            for example in examples {
                let difficulty = example.difficulty;
                let name = self.task.difficulty_name();
                writeln!(f, "\n{part}, {name} {difficulty}\n{example}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ShownExample {
    /// Inputs above targets, `.` where the target does not count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut inputs, mut targets) = (String::new(), String::new());
        for (input, target) in self.inputs.iter().zip(&self.targets) {
            let target = target.as_deref().unwrap_or(".");
            let width = input.len().max(target.len());
            inputs += &format!(" {input:<width$}");
            targets += &format!(" {target:<width$}");
        }
        write!(
            f,
            "  inputs {}\n  targets{}",
            inputs.trim_end(),
            targets.trim_end()
        )
    }
}
