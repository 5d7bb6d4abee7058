//! Running a task: documents to items, items to answers, answers to metrics.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use iiet_files::read_regular_text;
use iiet_text::BeamSearch;
use serde_json::{Map, Value};

use crate::data::{self, Document, Part, Split};
use crate::error::EvalError;
use crate::examples::Examples;
use crate::generated::{self, AskedGenerated};
use crate::held_out;
use crate::identity;
use crate::item::{Answers, Item};
use crate::metric::Metric;
use crate::scorer::{Continuation, Progress, Scored, Scorer, Targets, Unscorable};
use crate::search::SearchOptions;
use crate::task::{Form, Source, Task};

/// What is evaluated, and on what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder with a folder for each task; for `text` the file itself will do.
    pub data: Option<PathBuf>,
    /// Only the first so many documents.
    pub limit: Option<usize>,
    /// Worked examples before each question.
    pub num_fewshot: usize,
    /// Where the default corpus is looked for.
    pub workspace: PathBuf,
    /// Where the items of the heldout tasks are kept.
    pub cache: PathBuf,
    /// The options of the generated tasks that are asked, see [`asked_generated`](crate::asked_generated).
    pub generated: Vec<AskedGenerated>,
    /// A folder that [`write_held_out`](crate::write_held_out) wrote: the generated items are read from
    /// it, and no workspace is needed.
    pub held_out: Option<PathBuf>,
    /// The part of the data sets to evaluate, instead of the one that the harness does.
    pub split: Option<Split>,
    /// How targets are decoded, where it is not left to the task.
    pub search: SearchOptions,
}

impl Default for Settings {
    /// No data of one's own, no limit, no examples; the workspace around the working directory, and its
    /// folder `data`.
    fn default() -> Self {
        Self {
            data: None,
            limit: None,
            num_fewshot: 0,
            workspace: ".".into(),
            cache: "data".into(),
            held_out: None,
            split: None,
            generated: Vec::new(),
            search: SearchOptions::default(),
        }
    }
}

impl Settings {
    fn generated(&self, task: &str) -> Result<&AskedGenerated, EvalError> {
        let mut asked = self.generated.iter();
        let found = asked.find(|asked| asked.spec.name() == task);
        found.ok_or_else(|| EvalError::NotAsked {
            task: task.to_owned(),
        })
    }
}

/// A task's items, ready to be asked.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What is asked.
    pub task: &'static Task,
    /// Worked examples in each prompt.
    pub num_fewshot: usize,
    /// The options of a generated task.
    pub generated: Option<AskedGenerated>,
    /// How the targets of sources are decoded: as the task says, unless [`Settings::search`] says otherwise.
    pub search: Option<BeamSearch>,
    /// Documents that there are, whatever the limit.
    pub original: usize,
    /// The documents, within the limit.
    pub documents: Vec<Document>,
    /// What is asked about each document, in the same order.
    pub items: Vec<Item>,
    /// The part of the data set, where it has any.
    pub split: Option<Split>,
    /// Where the documents are from: files, a repository on the hub, or a workspace.
    pub place: String,
    /// What identifies the items: equal for equal documents, prompts and answers, whatever their place.
    /// SHA-256 in hexadecimal, `task_hashes` in the harness's results.
    pub hash: String,
}

/// An item that a model cannot answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its number, counted from 0.
    pub item: usize,
    /// Why.
    pub reason: Unscorable,
}

/// The result of a task for a model.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Items that the metrics leave out.
    pub left_out: Vec<LeftOut>,
    /// The answers to the other items, in their order.
    pub answers: Vec<Answers>,
    /// The metrics over these answers.
    pub metrics: Vec<Metric>,
    /// [`Prepared::hash`] of the items.
    pub items_hash: String,
    /// The time that the scorer took.
    pub seconds: f64,
}

/// Reads a task's data and makes its items.
///
/// # Errors
/// About the data: [`EvalError::NoData`], [`EvalError::Field`] and others; [`EvalError::Search`] for options of a
/// search that are out of range.
pub fn prepare(task: &'static Task, settings: &Settings) -> Result<Prepared, EvalError> {
    let Part {
        split,
        rows: mut documents,
        place,
    } = documents(task, settings)?;
    let search = search(task, settings)?;
    let original = documents.len();
    documents.truncate(settings.limit.unwrap_or(original));
    let num_fewshot = match task.form.takes_examples() {
        true => settings.num_fewshot,
        false => 0,
    };
    let mut examples = Examples::new(task, settings, split, num_fewshot)?;
    let items: Vec<Item> = documents
        .iter()
        .map(|document| task.form.item(document, &examples.prompt(document)?))
        .collect::<Result<_, _>>()?;
    let hash = identity::of_items(task, &documents, &items)?;
    Ok(Prepared {
        task,
        num_fewshot,
        generated: match task.source {
            Source::Generated => Some(settings.generated(task.name)?.clone()),
            _ => None,
        },
        search,
        original,
        documents,
        items,
        split,
        place,
        hash,
    })
}

/// How the task's targets are decoded, if it asks for any.
fn search(task: &'static Task, settings: &Settings) -> Result<Option<BeamSearch>, EvalError> {
    let Form::TargetText { search, .. } = task.form else {
        return Ok(None);
    };
    let search = settings.search.apply(search);
    let checked = search.validate();
    checked.map_err(|source| EvalError::Search {
        task: task.name,
        source: Box::new(source),
    })?;
    Ok(Some(search))
}

pub(crate) fn documents(task: &'static Task, settings: &Settings) -> Result<Part, EvalError> {
    let data = settings.data.as_deref();
    let undivided = !matches!(task.source, Source::Hub(_) | Source::Pairs);
    if let (Some(split), true) = (settings.split, undivided) {
        return Err(EvalError::NoSplit {
            task: task.name.to_owned(),
            split,
            allowed: "none, its data is not divided".to_owned(),
        });
    }
    match &task.source {
        Source::Hub(hub) => hub.load_evaluated(task.name, data, settings.split),
        Source::Text => texts(task.name, data),
        Source::Pairs => data::pairs(task.name, data, settings.split),
        Source::HeldOut(generate) => held_out::load(task.name, *generate, settings),
        Source::Generated => Ok(Part {
            split: None,
            rows: generated::documents(settings.generated(task.name)?)?,
            place: "the task's own generator".to_owned(),
        }),
    }
}

/// The documents of `text`: the file named, or all files of `DIR/text`.
fn texts(task: &str, data: Option<&Path>) -> Result<Part, EvalError> {
    let folder = data.map(|data| data.join(task));
    let mut files = Vec::new();
    match (data, &folder) {
        // A device or a pipe is refused when it is opened.
        (Some(file), _) if file.exists() && !file.is_dir() => files.push(file.to_owned()),
        (_, Some(folder)) if folder.is_dir() => {
            for entry in std::fs::read_dir(folder).map_err(EvalError::io(folder))? {
                let path = entry.map_err(EvalError::io(folder))?.path();
                files.extend(path.is_file().then_some(path));
            }
            files.sort();
        }
        _ => {}
    }
    if files.is_empty() {
        return Err(EvalError::NoData {
            task: task.to_owned(),
            split: Split::Test,
            place: match &folder {
                Some(folder) => format!("in {}", folder.display()),
                None => "without --data".to_owned(),
            },
            looked_for: "files of that folder".to_owned(),
            remedy: "--data FILE evaluates one file".to_owned(),
        });
    }
    let names = files.iter().map(|file| file.display().to_string());
    let place = names.collect::<Vec<_>>().join(", ");
    let mut documents = Vec::new();
    for file in files {
        let ending = file.extension().unwrap_or_default().to_ascii_lowercase();
        if ["jsonl", "json", "parquet", "arrow"]
            .map(Some)
            .contains(&ending.to_str())
        {
            documents.extend(data::read(&file)?);
            continue;
        }
        let text = read_regular_text(&file).map_err(EvalError::io(&file))?;
        if text.is_empty() {
            return Err(EvalError::NoRows { path: file });
        }
        let path: Arc<Path> = file.into();
        let fields = Map::from_iter([("text".to_owned(), Value::String(text))]);
        documents.push(Document::new(&path, 1, fields));
    }
    Ok(Part {
        split: None,
        rows: documents,
        place,
    })
}

impl Prepared {
    /// How often a guess between the choices is right; `None` where the answer is free.
    pub fn chance(&self) -> Option<f64> {
        let of_item = |item: &Item| match item {
            Item::Choice { requests, .. } => Some(1.0 / requests.len() as f64),
            Item::Cloze(_)
            | Item::Rolling { .. }
            | Item::Targets { .. }
            | Item::TargetText { .. } => None,
        };
        let sum: f64 = self.items.iter().map(of_item).sum::<Option<f64>>()?;
        (!self.items.is_empty()).then(|| sum / self.items.len() as f64)
    }

    /// Asks a language model.
    ///
    /// # Errors
    /// Those of the scorer; [`EvalError::NeedsDecoder`] for a task that [`decode`](Self::decode) asks.
    pub fn evaluate(
        &self,
        scorer: &dyn Scorer,
        progress: &dyn Progress,
    ) -> Result<Evaluated, EvalError> {
        let started = Instant::now();
        let mut requests: Vec<Continuation> = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        let mut targets: Vec<Targets> = Vec::new();
        for item in &self.items {
            match item {
                Item::Choice { requests: of, .. } => requests.extend(of.iter().cloned()),
                Item::Cloze(request) => requests.push(request.clone()),
                Item::Rolling { scored, .. } => texts.push(scored.clone()),
                Item::Targets { request, .. } => targets.push(request.clone()),
                Item::TargetText { .. } => {
                    let task = self.task.name;
                    return Err(EvalError::NeedsDecoder { task });
                }
            }
        }
        // The items of a task are of one kind, so at most one of these has requests.
        let mut rolling = match texts.is_empty() {
            true => Vec::new(),
            false => scorer.log_likelihood_rolling(&texts, progress)?,
        }
        .into_iter();
        let mut of_targets = match targets.is_empty() {
            true => Vec::new(),
            false => scorer.targets(&targets, progress)?,
        }
        .into_iter();
        let mut scored = match requests.is_empty() {
            true => Vec::new(),
            false => scorer.log_likelihood(&requests, progress)?,
        }
        .into_iter();
        let (mut answers, mut left_out) = (Vec::new(), Vec::new());
        for (item, asked) in self.items.iter().enumerate() {
            let scored = match asked {
                Item::Choice { requests, .. } => scored.by_ref().take(requests.len()).collect(),
                Item::Cloze(_) => scored.by_ref().take(1).collect(),
                Item::Rolling { .. } => {
                    answers.extend(rolling.next().map(Answers::Rolling));
                    continue;
                }
                Item::Targets { .. } => {
                    answers.extend(of_targets.next().map(Answers::Scored));
                    continue;
                }
                Item::TargetText { .. } => continue,
            };
            let scored: Vec<Result<Scored, Unscorable>> = scored;
            match scored.into_iter().collect() {
                Ok(scored) => answers.push(Answers::Scored(scored)),
                Err(reason) => left_out.push(LeftOut { item, reason }),
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        self.judge(left_out, answers, seconds)
    }

    /// The metrics of the items that were answered.
    ///
    /// # Errors
    /// [`EvalError::Unscorable`] with the first reason if there are none, and those of
    /// [`Form::metrics`].
    pub(crate) fn judge(
        &self,
        left_out: Vec<LeftOut>,
        answers: Vec<Answers>,
        seconds: f64,
    ) -> Result<Evaluated, EvalError> {
        if let (true, Some(first)) = (answers.is_empty(), left_out.first()) {
            return Err(first.reason.clone().into());
        }
        let mut evaluated = Evaluated {
            left_out,
            answers,
            metrics: Vec::new(),
            items_hash: self.hash.clone(),
            seconds,
        };
        let answered = evaluated.answered(self.items.len());
        let answered: Vec<&Item> = answered.map(|number| &self.items[number]).collect();
        evaluated.metrics = self.task.form.metrics(&answered, &evaluated.answers)?;
        Ok(evaluated)
    }

    /// The same without the items that another model cannot answer.
    ///
    /// # Errors
    /// [`EvalError::Unscorable`] if no item is left.
    #[cfg(feature = "model")]
    pub(crate) fn without(
        &self,
        evaluated: &Evaluated,
        others: &[LeftOut],
    ) -> Result<Evaluated, EvalError> {
        let unanswered = |item: usize| others.iter().any(|other| other.item == item);
        let mut left_out = evaluated.left_out.clone();
        for other in others {
            if left_out.iter().all(|left_out| left_out.item != other.item) {
                left_out.push(other.clone());
            }
        }
        left_out.sort_by_key(|left_out| left_out.item);
        let answered = evaluated.answered(self.items.len());
        let answers = answered.zip(&evaluated.answers);
        let answers = answers.filter(|(item, _)| !unanswered(*item));
        let answers = answers.map(|(_, answers)| answers.clone()).collect();
        self.judge(left_out, answers, evaluated.seconds)
    }
}

/// A sentence on the items, with what identifies them.
impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} items", self.task.name, self.items.len())?;
        if let Some(split) = self.split {
            write!(f, ", {split} split")?;
        }
        write!(f, ", from {}; hash {}", self.place, &self.hash[..16])
    }
}

impl Evaluated {
    /// The numbers of the items that the answers are to, of so many.
    pub(crate) fn answered(&self, items: usize) -> impl Iterator<Item = usize> {
        let left_out = self.left_out.iter().map(|left_out| left_out.item);
        let left_out: HashSet<usize> = left_out.collect();
        (0..items).filter(move |item| !left_out.contains(item))
    }
}
