//! Numbers as the cells of a table have them.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::super::Estimate;

/// A table whose columns from `numbers` on are aligned to the right.
pub(super) fn aligned(
    header: Vec<String>,
    rows: impl Iterator<Item = Vec<String>>,
    numbers: usize,
) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn plain(estimate: Option<Estimate>) -> String {
    with_error(estimate, |value| format!("{value:.4}"))
}

pub(super) fn signed(estimate: Option<Estimate>) -> String {
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

pub(super) fn percentage(estimate: Option<Estimate>) -> String {
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

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Digits in groups of three.
pub(super) fn thousands(number: u64) -> String {
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
    use super::*;

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
