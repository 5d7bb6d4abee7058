//! What identifies items: the hashes that the harness's records have, in hexadecimal SHA-256.
//!
//! ```text
//! doc_hash      of json.dumps(doc, indent=2, ensure_ascii=False)
//! prompt_hash   of the text before the answer
//! target_hash   of str(target)
//! task_hashes   of all records' doc_hash + prompt_hash + target_hash, one after the other
//! ```
//!
//! (`lm_eval/evaluator.py`, `lm_eval/loggers/evaluation_tracker.py`.) The last is the identity of a
//! task's items. It covers the documents, the examples in the prompts and the right answers, and does
//! not depend on a model.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::data::{Document, Json};
use crate::error::EvalError;
use crate::item::Item;
use crate::python_json::dumps;
use crate::task::{Form, Source, Task};

/// What identifies one item.
pub(crate) struct Identity {
    /// The document as the harness asks about it.
    pub doc: Json,
    pub doc_hash: String,
    pub prompt_hash: String,
    /// The right answer as text.
    pub target: String,
    pub target_hash: String,
}

impl Identity {
    pub(crate) fn new(task: &Task, document: &Document, item: &Item) -> Result<Self, EvalError> {
        let doc = doc(task, document)?;
        let target = target(&task.form, document, item)?.into_owned();
        Ok(Self {
            doc_hash: hash(&dumps(&doc)),
            prompt_hash: hash(&prompt(item)),
            target_hash: hash(&target),
            doc,
            target,
        })
    }
}

/// The identity of a task's items.
pub(crate) fn of_items(
    task: &Task,
    documents: &[Document],
    items: &[Item],
) -> Result<String, EvalError> {
    let mut hash = Sha256::new();
    for (document, item) in documents.iter().zip(items) {
        let identity = Identity::new(task, document, item)?;
        hash.update(identity.doc_hash);
        hash.update(identity.prompt_hash);
        hash.update(identity.target_hash);
    }
    Ok(hexadecimal(hash))
}

fn doc(task: &Task, document: &Document) -> Result<Json, EvalError> {
    let mut doc = document.json();
    if let Source::Hub(data) = &task.source
        && let (Some(adds), Json::Object(fields)) = (data.adds, &mut doc)
    {
        fields.extend(adds(document)?);
    }
    Ok(doc)
}

/// The first argument of an item's first request.
fn prompt(item: &Item) -> Cow<'_, str> {
    match item {
        Item::Choice { requests, .. } => {
            let first = requests.first();
            first.map_or("", |request| &request.context).into()
        }
        Item::Cloze(request) => (&*request.context).into(),
        Item::Rolling { scored, .. } => scored.into(),
        Item::Targets { request, .. } => request.inputs.join(" ").into(),
        Item::TargetText { source, .. } => source.into(),
    }
}

/// What the harness calls the target: a choice by its number, but the ending where contexts are chosen.
fn target<'a>(form: &Form, document: &Document, item: &'a Item) -> Result<Cow<'a, str>, EvalError> {
    Ok(match (form, item) {
        (Form::Contexts { ending, .. }, _) => ending(document)?.into(),
        (_, Item::Choice { answer, .. }) => answer.to_string().into(),
        (_, Item::Cloze(request)) => request.continuation.as_str().into(),
        (_, Item::Rolling { scored, .. }) => scored.as_str().into(),
        (_, Item::Targets { request, .. }) => {
            let symbols = request.wanted.iter().map(|(_, symbol)| symbol.as_str());
            symbols.collect::<Vec<_>>().join(" ").into()
        }
        (_, Item::TargetText { references, .. }) => references.join("\n").into(),
    })
}

fn hash(text: &str) -> String {
    hexadecimal(Sha256::new_with_prefix(text))
}

fn hexadecimal(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_those_of_hashlib() {
        // hashlib.sha256("é".encode()).hexdigest()
        let expected = "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c";
        assert_eq!(super::hash("é"), expected);
    }
}
