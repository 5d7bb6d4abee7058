//! Generated tasks of `iiet-data`: accuracy by difficulty, on examples that no run is trained on.
//!
//! The examples are those that [`iiet_data::TaskExamples`] holds out by their content, so they are
//! disjoint from the training examples of every run, whatever its seed and difficulty. Options come
//! from the `task.json` of the models, and may be overridden.

mod asked;

use std::path::Path;
use std::sync::Arc;

use iiet_data::{Example, Judged, Part, TaskExamples};
use serde_json::{Map, Value, json};

pub use asked::{AskedGenerated, asked_generated};

use crate::data::{Document, Json};
use crate::error::EvalError;
use crate::item::{Answers, Item};
use crate::metric::{Metric, Values};
use crate::scorer::{Scored, Targets};

/// Examples of each difficulty.
pub const PER_DIFFICULTY: usize = 512;

/// The seed of the examples; that of training's validation is 0.
const SEED: u64 = 1;

/// The documents of a task, its difficulties in turn, so that the first few have all of them.
pub(crate) fn documents(asked: &AskedGenerated) -> Result<Vec<Document>, EvalError> {
    let symbols = asked.spec.task().symbols();
    let name = format!("task:{}", asked.spec.name());
    let path: Arc<Path> = Path::new(&name).into();
    let sources = asked
        .difficulties
        .iter()
        .map(|difficulty| {
            let spec = asked::only(&asked.spec, *difficulty);
            let longest = spec.longest();
            Ok(TaskExamples::new(spec, Part::HeldOut, longest)?)
        })
        .collect::<Result<Vec<_>, EvalError>>()?;
    let mut documents = Vec::with_capacity(sources.len() * PER_DIFFICULTY);
    for index in 0..PER_DIFFICULTY as u64 {
        for source in &sources {
            let (difficulty, example) = source.example(SEED, index)?;
            let fields = fields(difficulty, &example, asked.spec.task().judged(), &symbols);
            documents.push(Document::new(&path, documents.len() + 1, fields));
        }
    }
    Ok(documents)
}

/// An example in symbols, of whose targets those remain that decide.
fn fields(
    difficulty: usize,
    example: &Example,
    judged: Judged,
    symbols: &[String],
) -> Map<String, Value> {
    let symbol = |id: u32| match symbols.get(id as usize) {
        Some(symbol) => symbol.clone(),
        None => iiet_data::DOCUMENT_END.to_owned(),
    };
    let counted = example.weights.iter().enumerate();
    let mut places: Vec<usize> = counted
        .filter(|(_, weight)| **weight > 0.0)
        .map(|(place, _)| place)
        .collect();
    if judged == Judged::Last {
        places.drain(..places.len().saturating_sub(1));
    }
    let inputs: Vec<String> = example.inputs.iter().map(|id| symbol(*id)).collect();
    let targets = places.iter().map(|place| symbol(example.targets[*place]));
    Map::from_iter([
        ("difficulty".to_owned(), json!(difficulty)),
        ("inputs".to_owned(), json!(inputs)),
        ("places".to_owned(), json!(places)),
        ("targets".to_owned(), targets.collect()),
    ])
}

/// What is asked about a document.
pub(crate) fn item(document: &Document) -> Result<Item, EvalError> {
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let inputs = owned(document.texts("inputs")?);
    let targets = owned(document.texts("targets")?);
    let places = document.field("places").and_then(Json::as_list);
    let places: Option<Vec<usize>> = places.and_then(|places| {
        let place = |value: &Json| value.as_u64()?.try_into().ok();
        places.iter().map(place).collect()
    });
    let fits = |places: &Vec<usize>| {
        places.len() == targets.len() && places.iter().all(|place| *place < inputs.len())
    };
    let Some(places) = places.filter(fits) else {
        let expected = "as many places within the inputs as there are targets";
        return Err(document.wrong("places", document.field("places"), expected));
    };
    Ok(Item::Targets {
        difficulty: document.choice("difficulty", usize::MAX)?,
        request: Targets {
            inputs,
            wanted: places.into_iter().zip(targets).collect(),
        },
    })
}

/// Accuracy over all items, at each difficulty, and the greatest difficulty that is solved.
pub(crate) fn metrics(all_together: bool, items: &[&Item], answers: &[Answers]) -> Vec<Metric> {
    let values: Vec<(usize, f64)> = items
        .iter()
        .zip(answers)
        .filter_map(|(item, answers)| match (item, answers) {
            (Item::Targets { difficulty, .. }, Answers::Scored(scores)) => {
                Some((*difficulty, share(all_together, scores)))
            }
            _ => None,
        })
        .collect();
    let mut difficulties: Vec<usize> = values.iter().map(|(difficulty, _)| *difficulty).collect();
    difficulties.sort();
    difficulties.dedup();
    let of = |wanted: Option<usize>| {
        let values = values.iter();
        let values = values.filter(|(difficulty, _)| wanted.is_none_or(|d| d == *difficulty));
        Values::Mean(values.map(|(_, value)| *value).collect())
    };
    let overall = Metric::new("acc", of(None));
    let each = difficulties
        .into_iter()
        .map(|difficulty| Metric::new(format!("acc@{difficulty}"), of(Some(difficulty))));
    let solved = Metric::new("solved_90", Values::Solved(values.clone()));
    [overall].into_iter().chain(each).chain([solved]).collect()
}

/// The share of an example that is right; of one that counts as a whole, 0 or 1.
fn share(all_together: bool, scores: &[Scored]) -> f64 {
    let right = scores.iter().filter(|score| score.is_greedy).count();
    match all_together {
        true => f64::from(u8::from(right == scores.len())),
        false => right as f64 / scores.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item_of(difficulty: usize) -> Item {
        Item::Targets {
            difficulty,
            request: Targets {
                inputs: vec!["e".into(); 2],
                wanted: vec![(0, "e".into()), (1, "e".into())],
            },
        }
    }

    fn answers(right: [bool; 2]) -> Answers {
        let score = |is_greedy| Scored {
            log_likelihood: 0.0,
            is_greedy,
        };
        Answers::Scored(right.map(score).to_vec())
    }

    #[test]
    fn accuracies_by_difficulty() {
        let items = [item_of(4), item_of(8), item_of(4), item_of(8)];
        let items: Vec<&Item> = items.iter().collect();
        let given = [[true; 2], [true, false], [true; 2], [false; 2]].map(answers);
        let named = |all_together| -> Vec<(String, f64)> {
            let metrics = metrics(all_together, &items, &given).into_iter();
            metrics.map(|m| (m.name.into_owned(), m.value)).collect()
        };
        let expected = |acc: f64, at_8: f64| {
            [
                ("acc", acc),
                ("acc@4", 1.0),
                ("acc@8", at_8),
                ("solved_90", 4.0),
            ]
            .map(|(name, value)| (name.to_owned(), value))
        };
        assert_eq!(named(false), expected(0.625, 0.25));
        assert_eq!(named(true), expected(0.5, 0.0));
    }
}
