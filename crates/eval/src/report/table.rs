//! A report for the terminal: costs and speeds, quality, retention.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::{Estimate, ModelReport, Report, TaskQuality};

/// A report as text, tables in Markdown.
pub fn table(report: &Report) -> String {
    let Some(reference) = report.models.first() else {
        return String::new();
    };
    let mut text = String::new();
    let workload = &report.workload;
    let machine = &report.machine;
    let tables = [
        (
            "Cost and speed".to_owned(),
            Some(costs(report)),
            format!(
                "Shares and ratios: of {}. Speeds: one text, a prompt of {} tokens, {} decoded after it; \
                 medians of {} rounds in which the models take turns. {}, {} cores, {} threads.",
                reference.name,
                workload.prompt_tokens,
                workload.decoded_tokens,
                workload.rounds,
                machine.processor.as_deref().unwrap_or(machine.architecture),
                machine.cores,
                machine.threads,
            ),
        ),
        (
            "Quality, ± one standard error".to_owned(),
            Some(quality(report)),
            format!(
                "Differences are from {}, item by item, and so are their standard errors.{}",
                reference.name,
                chances(reference)
            ),
        ),
        (
            format!("Retention: accuracy over that of {}", reference.name),
            (report.models.len() > 1)
                .then(|| retention(report))
                .flatten(),
            "In all: of the mean accuracy over the tasks.".to_owned(),
        ),
    ];
    for (title, table, below) in tables {
        if let Some(table) = table {
            let _ = writeln!(text, "{title}\n\n{table}\n\n{below}\n");
        }
    }
    for task in &report.tasks {
        let split = task.split.iter().map(|split| format!(", {split} split"));
        let _ = writeln!(
            text,
            "{}: {} of {} documents{}, from {}; hash {}",
            task.name,
            task.used,
            task.documents,
            split.collect::<String>(),
            task.place,
            short(&task.items_hash)
        );
    }
    for note in &report.notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn costs(report: &Report) -> Table {
    let header = [
        "Model",
        "Solver",
        "Parameters",
        "MB of weights",
        "share",
        "Evaluations per token",
        "a layer",
        "share",
        "MFLOPs per token",
        "share",
        "Decoding tokens/s",
        "ratio",
        "Prefill tokens/s",
        "ratio",
    ];
    let rows = report.models.iter().map(|model| {
        let (cost, speed) = (&model.cost, &model.speed);
        vec![
            model.name.clone(),
            model.solver.to_owned(),
            thousands(cost.parameters),
            format!("{:.1}", cost.weight_bytes as f64 / 1e6),
            percent(cost.share_of_bytes),
            cost.evaluations.to_string(),
            format!("{:.2}", cost.evaluations_per_layer),
            percent(cost.share_of_evaluations),
            format!("{:.2}", cost.forward_flops / 1e6),
            percent(cost.share_of_flops),
            format!("{:.1}", speed.decoding),
            format!("{:.2}", speed.decoding_ratio),
            format!("{:.0}", speed.prefill),
            format!("{:.2}", speed.prefill_ratio),
        ]
    });
    aligned(header.map(str::to_owned).into(), rows, 2)
}

fn quality(report: &Report) -> Table {
    let tasks = report.models.first().map(|model| &model.quality.tasks);
    let tasks = tasks.into_iter().flatten();
    let accuracies = tasks.clone().filter(|task| task.is_accuracy()).count();
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
        for task in &quality.tasks {
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
    aligned(header, report.models.iter().map(row), 1)
}

/// `None` if no task has an accuracy.
fn retention(report: &Report) -> Option<Table> {
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
    (!tasks.is_empty()).then(|| aligned(header, report.models.iter().map(row), 1))
}

/// The beginning of a hash.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// What guessing gets, for the tasks that know it.
fn chances(model: &ModelReport) -> String {
    let tasks = model.quality.tasks.iter();
    let known: Vec<String> = tasks
        .filter_map(|task| Some(format!("{} {:.4}", task.task, task.chance?)))
        .collect();
    match known.is_empty() {
        true => String::new(),
        false => format!(" Guessing gets: {}.", known.join(", ")),
    }
}

/// A table whose columns from `numbers` on are aligned to the right.
fn aligned(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>, numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn plain(estimate: Option<Estimate>) -> String {
    with_error(estimate, |value| format!("{value:.4}"))
}

fn signed(estimate: Option<Estimate>) -> String {
    with_error(estimate, |value| format!("{value:+.4}"))
}

fn with_error(estimate: Option<Estimate>, number: impl Fn(f64) -> String) -> String {
    match estimate {
        None => "N/A".to_owned(),
        Some(Estimate {
            value,
            standard_error,
        }) => match standard_error {
            None => number(value),
            Some(error) => format!("{} ± {error:.4}", number(value)),
        },
    }
}

fn percentage(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "N/A".to_owned(),
        Some(Estimate {
            value,
            standard_error: None,
        }) => percent(value),
        Some(Estimate {
            value,
            standard_error: Some(error),
        }) => format!("{:.1} ± {:.1} %", 100.0 * value, 100.0 * error),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Digits in groups of three.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    /// The cells of a model's row in the table below a title.
    fn row<'a>(text: &'a str, title: &str, model: &str) -> Vec<&'a str> {
        let (_, after) = text.split_once(title).unwrap();
        let begins = format!("| {model} ");
        let line = after.lines().find(|line| line.starts_with(&begins));
        let cells = line.unwrap().trim_matches('|').split('|');
        cells.map(str::trim).collect()
    }

    #[test]
    fn what_is_in_the_report_is_in_the_tables() {
        let models = vec![
            example::model("teacher", 8, 0.5),
            example::model("student", 4, 0.45),
        ];
        let text = table(&example::report(models));
        assert_eq!(
            row(&text, "Cost and speed", "student"),
            [
                "student",
                "iterative_implicit_euler",
                "1 330 354",
                "5.3",
                "100.0 %",
                "4",
                "1.00",
                "50.0 %",
                "2.00",
                "50.0 %",
                "250.0",
                "2.00",
                "2000",
                "2.00"
            ]
        );
        assert_eq!(
            row(&text, "Quality", "student"),
            [
                "student",
                "2.2500 ± 0.0500",
                "+0.1250 ± 0.0100",
                "0.4500 ± 0.0200",
                "-0.0500 ± 0.0150"
            ]
        );
        assert_eq!(
            row(&text, "Retention", "student"),
            ["student", "90.0 ± 3.0 %", "90.0 ± 3.0 %"]
        );
        for part in [
            "a prompt of 96 tokens, 32 decoded",
            "Guessing gets: heldout_choice 0.2500.",
            "heldout_bpb: 1024 of 1024 documents, from the locked dependencies of /project; hash a1\n",
            "\nA note.\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_model_alone_retains_nothing() {
        let text = table(&example::report(vec![example::model("alone", 8, 0.5)]));
        assert!(!text.contains("Retention"), "{text}");
    }

    #[test]
    fn digits_stand_in_groups() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1_234_567, "1 234 567"),
        ] {
            assert_eq!(thousands(number), expected);
        }
    }
}
