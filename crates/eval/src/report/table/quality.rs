//! Bits per byte, accuracies and retention as tables.

use comfy_table::Table;

use super::super::{ModelReport, Report, TaskQuality};
use super::cells::{aligned, percentage, plain, signed};

/// `None` if all tasks have scores of texts alone.
pub(super) fn quality(report: &Report) -> Option<Table> {
    let tasks = in_columns(report.models.first()?);
    if tasks.is_empty() {
        return None;
    }
    let accuracies = tasks.iter().filter(|task| task.is_accuracy()).count();
    let mut header = vec!["Model".to_owned()];
    for task in tasks {
        header.push(format!("{} {}", task.task, task.metric));
        if !task.is_accuracy() {
            header.push("difference".to_owned());
        }
    }
    if accuracies > 1 {
        header.push("mean accuracy".to_owned());
    }
    if accuracies > 0 {
        header.push("difference".to_owned());
    }
    let row = |model: &ModelReport| {
        let quality = &model.quality;
        let mut row = vec![model.name.clone()];
        for task in in_columns(model) {
            row.push(plain(Some(task.estimate)));
            if !task.is_accuracy() {
                row.push(signed(task.difference));
            }
        }
        if accuracies > 1 {
            row.push(plain(quality.accuracy));
        }
        if accuracies > 0 {
            row.push(signed(quality.accuracy_difference));
        }
        row
    };
    Some(aligned(header, report.models.iter().map(row), 1))
}

/// What is asked besides the scores of texts, which have rows of their own.
fn in_columns(model: &ModelReport) -> Vec<&TaskQuality> {
    let tasks = model.quality.tasks.iter();
    tasks.filter(|task| task.scores.is_empty()).collect()
}

/// `None` for a model alone, and if no task has an accuracy.
pub(super) fn retention(report: &Report) -> Option<Table> {
    let accuracies = |model: &ModelReport| -> Vec<TaskQuality> {
        let tasks = model.quality.tasks.iter();
        tasks.filter(|task| task.is_accuracy()).cloned().collect()
    };
    let tasks = accuracies(report.models.first()?);
    let mut header = vec!["Model".to_owned()];
    header.extend(tasks.iter().map(|task| task.task.to_owned()));
    header.push("in all".to_owned());
    let row = |model: &ModelReport| {
        let mut row = vec![model.name.clone()];
        row.extend(
            accuracies(model)
                .iter()
                .map(|task| percentage(task.retention)),
        );
        row.push(percentage(model.quality.retention));
        row
    };
    let is_shown = report.models.len() > 1 && !tasks.is_empty();
    is_shown.then(|| aligned(header, report.models.iter().map(row), 1))
}

/// What guessing gets, for the tasks that know it.
pub(super) fn chances(model: &ModelReport) -> String {
    let tasks = model.quality.tasks.iter();
    let known: Vec<String> = tasks
        .filter_map(|task| Some(format!("{} {:.4}", task.task, task.chance?)))
        .collect();
    match known.is_empty() {
        true => String::new(),
        false => format!(" Guessing gets: {}.", known.join(", ")),
    }
}
