//! The tasks. A new one is a file here, its `mod` line and its place in [`TASKS`].
//!
//! Those of the harness have its names, prompts, versions and choice of splits
//! (`lm_eval/tasks/*/*.yaml` of 0.4.13). Those of `iiet_data::TaskSpec` have its names.

mod addition;
mod arc_challenge;
mod arc_easy;
mod boolq;
mod group;
mod heldout_bpb;
mod heldout_choice;
mod heldout_cloze;
mod heldout_docs;
mod hellaswag;
mod hops;
mod lambada_openai;
mod lambada_standard;
mod openbookqa;
mod piqa;
mod pointers;
mod sciq;
mod summarisation;
mod text;
mod translation;
mod wikitext;
mod winogrande;

use crate::error::EvalError;
use crate::task::Task;

/// All tasks, by name.
pub const TASKS: &[&Task] = &[
    &addition::TASK,
    &arc_challenge::TASK,
    &arc_easy::TASK,
    &boolq::TASK,
    &group::TASK,
    &heldout_bpb::TASK,
    &heldout_choice::TASK,
    &heldout_cloze::TASK,
    &heldout_docs::TASK,
    &hellaswag::TASK,
    &hops::TASK,
    &lambada_openai::TASK,
    &lambada_standard::TASK,
    &openbookqa::TASK,
    &piqa::TASK,
    &pointers::TASK,
    &sciq::TASK,
    &summarisation::TASK,
    &text::TASK,
    &translation::TASK,
    &wikitext::TASK,
    &winogrande::TASK,
];

/// The task of this name.
///
/// # Errors
/// [`EvalError::UnknownTask`] names those that there are.
pub fn task(name: &str) -> Result<&'static Task, EvalError> {
    let found = TASKS.iter().find(|task| task.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
        EvalError::UnknownTask {
            name: name.to_owned(),
            known: names.join(", "),
        }
    })
}
