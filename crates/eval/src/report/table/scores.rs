//! Scores of texts as a table: a row for each score and model, as `iiet score` prints them.

use comfy_table::Table;

use super::super::{Estimate, Report, ScoreQuality};
use super::cells::aligned;

/// `None` if no task has scores of texts.
pub(super) fn scores(report: &Report) -> Option<Table> {
    let reference = report.models.first()?;
    let mut rows = Vec::new();
    for (at, task) in reference.quality.tasks.iter().enumerate() {
        for (number, baseline) in task.scores.iter().enumerate() {
            for model in &report.models {
                let score = &model.quality.tasks[at].scores[number];
                rows.push(vec![
                    task.task.to_owned(),
                    score.text.name.to_owned(),
                    model.name.clone(),
                    score.text.digits(score.text.score),
                    score.text.interval_text(),
                    difference(score),
                    score.text.p_value_text(baseline.text.score),
                ]);
            }
        }
    }
    let header = [
        "Task",
        "Score",
        "Model",
        "Value",
        "95 % interval",
        "difference",
        "p",
    ];
    let header = header.map(str::to_owned).into();
    (!rows.is_empty()).then(|| aligned(header, rows.into_iter(), 3))
}

fn difference(score: &ScoreQuality) -> String {
    let Some(Estimate {
        value,
        standard_error,
    }) = score.difference
    else {
        return "N/A".to_owned();
    };
    let sign = if value < 0.0 { "-" } else { "+" };
    let error = standard_error.map_or_else(String::new, |error| {
        format!(" ± {}", score.text.digits(error))
    });
    format!("{sign}{}{error}", score.text.digits(value.abs()))
}

/// A line for each task and score: all that the scores depend on.
pub(super) fn signatures(report: &Report) -> Vec<String> {
    let tasks = report.models.first().map(|model| &model.quality.tasks);
    let lines = tasks.into_iter().flatten().flat_map(|task| {
        let scores = task.scores.iter();
        scores.map(|score| {
            format!(
                "{} {}: {}",
                task.task, score.text.name, score.text.signature
            )
        })
    });
    lines.collect()
}
