//! A report for the terminal: costs and speeds, quality, retention.

mod cells;
mod costs;
mod quality;
mod scores;

use std::fmt::Write;

use super::{AskedTask, ModelReport, Report, Sides};

/// A report as text, tables in Markdown.
pub fn table(report: &Report) -> String {
    let Some(reference) = report.models.first() else {
        return String::new();
    };
    let name = &reference.name;
    let mut text = String::new();
    let tables = [
        (
            "Cost and speed".to_owned(),
            Some(costs::costs(report)),
            format!(
                "Shares and ratios: of {name}. Speeds: {}; medians of {} rounds in which the models take turns. {}",
                workload(report, reference),
                report.workload.rounds,
                machine(report)
            ),
        ),
        (
            "Cost of the sides".to_owned(),
            costs::sides(report),
            "Per token of a source in the encoder, per token of a target in the decoder."
                .to_owned(),
        ),
        (
            "Scores of texts".to_owned(),
            scores::scores(report),
            format!(
                "Differences from {name}, ± the standard deviation over resamples of the same items; p by the \
                 paired bootstrap test, * at most 0.05."
            ),
        ),
        (
            "Quality, ± one standard error".to_owned(),
            quality::quality(report),
            format!(
                "Differences are from {name}, item by item, and so are their standard errors.{}",
                quality::chances(reference)
            ),
        ),
        (
            format!("Retention: accuracy over that of {name}"),
            quality::retention(report),
            "In all: of the mean accuracy over the tasks.".to_owned(),
        ),
    ];
    for (title, table, below) in tables {
        if let Some(table) = table {
            let _ = writeln!(text, "{title}\n\n{table}\n\n{below}\n");
        }
    }
    let lines = scores::signatures(report).into_iter();
    let lines = lines.chain(report.tasks.iter().map(asked));
    for line in lines.chain(report.notes.iter().cloned()) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// What the speeds were measured on.
fn workload(report: &Report, reference: &ModelReport) -> String {
    let workload = &report.workload;
    let (prompt, decoded) = (workload.prompt_tokens, workload.decoded_tokens);
    match reference.stacks {
        Sides::One(_) => {
            format!("one text, a prompt of {prompt} tokens, {decoded} decoded after it")
        }
        Sides::Two { .. } => format!(
            "{} sources at a time of {prompt} tokens, targets of {decoded} with beam {}",
            workload.batch, workload.beam
        ),
    }
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let processor = machine.processor.as_deref();
    format!(
        "{}, {} cores, {} threads.",
        processor.unwrap_or(machine.architecture),
        machine.cores,
        machine.threads
    )
}

/// What a task was asked on.
fn asked(task: &AskedTask) -> String {
    let split = task.split.iter().map(|split| format!(", {split} split"));
    let search = task.search.iter().map(|search| {
        format!(
            "; beam {}, length penalty {}",
            search.beam, search.length_penalty
        )
    });
    format!(
        "{}: {} of {} documents{}, from {}; hash {}{}",
        task.name,
        task.used,
        task.documents,
        split.collect::<String>(),
        task.place,
        short(&task.items_hash),
        search.collect::<String>()
    )
}

/// The beginning of a hash.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
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
    fn encoder_decoders_have_a_row_for_each_side_and_score() {
        let models = vec![
            example::encoder_decoder("teacher", 8, 26.5),
            example::encoder_decoder("student", 4, 26.25),
        ];
        let text = table(&example::report(models));
        assert_eq!(
            row(&text, "Cost and speed", "student")[..6],
            ["student", "1 330 354", "5.3", "100.0 %", "250.0", "2.00"]
        );
        let sides = row(&text, "Cost of the sides", "student");
        assert_eq!(
            sides[1..6],
            ["encoder", "iterative_implicit_euler", "4", "1.00", "50.0 %"]
        );
        let scores: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("| BLEU "))
            .collect();
        let last: Vec<&str> = scores[1]
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        assert_eq!(
            last,
            [
                "translation",
                "BLEU",
                "student",
                "26.25",
                "26.30 ± 0.50",
                "-0.25 ± 0.10",
                "0.0400*"
            ]
        );
        for part in [
            "8 sources at a time of 96 tokens, targets of 32 with beam 4",
            "translation BLEU: nrefs:1\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("Retention"), "{text}");
    }

    #[test]
    fn a_model_alone_retains_nothing() {
        let text = table(&example::report(vec![example::model("alone", 8, 0.5)]));
        assert!(!text.contains("Retention"), "{text}");
    }
}
