//! Worked examples before the question in a prompt.

use crate::data::{Document, Split};
use crate::error::EvalError;
use crate::evaluation::{Settings, documents};
use crate::python_random::PythonRandom;
use crate::task::{Source, Task};

/// The seed of the harness's choice of examples, fresh for each task.
pub const EXAMPLES_SEED: u32 = 1234;

/// The worked examples of each prompt, drawn as the harness draws them.
pub(crate) struct Examples {
    task: &'static Task,
    /// Whether the document asked about is left out of its own prompt.
    excluded: bool,
    pool: Vec<Document>,
    split: Split,
    number: usize,
    random: PythonRandom,
}

impl Examples {
    pub(crate) fn new(
        task: &'static Task,
        settings: &Settings,
        evaluated: Option<Split>,
        number: usize,
    ) -> Result<Self, EvalError> {
        let (excluded, split, pool) = match &task.source {
            _ if number == 0 => (false, Split::Test, Vec::new()),
            Source::Hub(data) => {
                let split = data.examples();
                let part = data.load(task.name, settings.data.as_deref(), split)?;
                let evaluated = evaluated.unwrap_or_else(|| data.evaluated());
                (data.excludes_the_document(evaluated), split, part.rows)
            }
            // A generated task has but one part.
            Source::Text | Source::HeldOut(_) | Source::Generated | Source::Pairs => {
                (true, Split::Test, documents(task, settings)?.rows)
            }
        };
        Ok(Self {
            task,
            excluded,
            pool,
            split,
            number,
            random: PythonRandom::new(EXAMPLES_SEED),
        })
    }

    /// The examples before a document (`ContextSampler.sample`). Where the document itself is to be
    /// left out, one more is drawn; should it be there more than once, the prompt is drawn anew.
    pub(crate) fn prompt(&mut self, document: &Document) -> Result<String, EvalError> {
        if self.number == 0 {
            return Ok(String::new());
        }
        let excluded = self.excluded;
        let drawn = self.draw(self.pool.len(), self.number + usize::from(excluded))?;
        let mut chosen: Vec<usize> = drawn;
        if excluded {
            chosen.retain(|at| self.pool[*at] != *document);
            chosen.truncate(self.number);
        }
        if chosen.len() < self.number {
            let others: Vec<usize> = (0..self.pool.len())
                .filter(|at| self.pool[*at] != *document)
                .collect();
            let again = self.draw(others.len(), self.number)?;
            chosen = again.into_iter().map(|at| others[at]).collect();
        }
        let examples = chosen
            .iter()
            .map(|at| self.task.form.example(&self.pool[*at]));
        examples.collect()
    }

    fn draw(&mut self, pool: usize, number: usize) -> Result<Vec<usize>, EvalError> {
        let drawn = self.random.sample(pool, number);
        drawn.ok_or_else(|| EvalError::TooFewExamples {
            task: self.task.name.to_owned(),
            wanted: number,
            split: self.split,
            found: pool,
        })
    }
}
