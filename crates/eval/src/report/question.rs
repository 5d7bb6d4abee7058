//! What every model of a report is asked, and their answers, item by item alike.

use super::Measuring;
use super::kind::Kind;
use crate::error::EvalError;
use crate::evaluation::{Evaluated, LeftOut, Prepared};
use crate::scorer::Progress;
use crate::task::Task;
use crate::tasks::task;

/// What is asked about the items of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What a language model is asked.
    Items,
    /// The targets of sources.
    Targets,
    /// How likely the references of sources are.
    References,
}

/// A part of a task that is asked at once.
pub(super) struct Question<'a> {
    pub task: &'a Prepared,
    pub asked: Asked,
}

/// What the tasks ask models of a kind.
///
/// # Errors
/// The errors of [`Kind::asked`].
pub(super) fn questions<K: Kind>(tasks: &[Prepared]) -> Result<Vec<Question<'_>>, EvalError> {
    let mut questions = Vec::new();
    for task in tasks {
        let asked = K::asked(task.task)?.iter();
        questions.extend(asked.map(|asked| Question {
            task,
            asked: *asked,
        }));
    }
    Ok(questions)
}

/// The tasks of these names, which models of a kind can be asked.
///
/// # Errors
/// [`EvalError::Nothing`] without tasks, [`EvalError::Twice`], [`EvalError::UnknownTask`], and the errors of
/// [`Kind::asked`].
pub(super) fn tasks<K: Kind>(names: &[String]) -> Result<Vec<&'static Task>, EvalError> {
    if names.is_empty() {
        return Err(EvalError::Nothing { of: "task" });
    }
    let twice = (1..names.len()).find(|at| names[..*at].contains(&names[*at]));
    if let Some(at) = twice {
        let name = names[at].clone();
        return Err(EvalError::Twice { name });
    }
    let known = |name: &String| {
        let task = task(name)?;
        K::asked(task)?;
        Ok(task)
    };
    names.iter().map(known).collect()
}

impl Question<'_> {
    /// The words for progress and notes.
    fn what(&self) -> String {
        match self.asked {
            Asked::Items | Asked::Targets => self.task.task.name.to_owned(),
            Asked::References => format!("{}, likelihood of references", self.task.task.name),
        }
    }
}

/// One model's answers to all questions.
pub(super) fn answers<K: Kind>(
    model: &K,
    name: &str,
    questions: &[Question<'_>],
    progress: &dyn Fn(Measuring<'_>) -> Box<dyn Progress>,
) -> Result<Vec<Evaluated>, EvalError> {
    let ask = |question: &Question<'_>| {
        let tokens = progress(Measuring::Task {
            model: name,
            task: &question.what(),
            items: question.task.items.len(),
        });
        let evaluated = model.ask(question.task, question.asked, &*tokens);
        evaluated.map_err(|source| EvalError::Asking {
            model: name.to_owned(),
            task: question.task.task.name,
            source: Box::new(source),
        })
    };
    questions.iter().map(ask).collect()
}

/// Leaves out of all models the items that one of them cannot answer, and says so.
pub(super) fn leave_out(
    questions: &[Question<'_>],
    answers: &mut [Vec<Evaluated>],
) -> Result<Vec<String>, EvalError> {
    let mut notes = Vec::new();
    for (at, question) in questions.iter().enumerate() {
        let left_out = answers.iter().flat_map(|model| model[at].left_out.clone());
        let left_out: Vec<LeftOut> = left_out.collect();
        let Some(first) = left_out.first() else {
            continue;
        };
        for model in &mut *answers {
            model[at] = question.task.without(&model[at], &left_out)?;
        }
        let count = answers.first().map_or(0, |model| model[at].left_out.len());
        notes.push(format!(
            "{}: {count} of {} items are left out, because a model cannot answer them; item {}: {}",
            question.what(),
            question.task.items.len(),
            first.item,
            first.reason
        ));
    }
    Ok(notes)
}
