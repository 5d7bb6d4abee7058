//! Costs and speeds as tables: of models as wholes, and of an encoder-decoder's sides.

use comfy_table::Table;

use super::super::{ModelReport, Report, Sides, Stack, TokenCost};
use super::cells::{aligned, percent, thousands};

/// The column of a cost per token.
type Column = (&'static str, fn(&Stack, &TokenCost) -> String);

const BEFORE: [Column; 1] = [("Solver", |stack, _| stack.solver.to_owned())];

const PER_TOKEN: [Column; 5] = [
    ("Evaluations per token", |_, cost| {
        cost.evaluations.to_string()
    }),
    ("a layer", |_, cost| {
        format!("{:.2}", cost.evaluations_per_layer)
    }),
    ("share", |_, cost| percent(cost.share_of_evaluations)),
    ("MFLOPs per token", |_, cost| {
        format!("{:.2}", cost.forward_flops / 1e6)
    }),
    ("share", |_, cost| percent(cost.share_of_flops)),
];

/// Costs and speeds of models; of encoder-decoders without the costs of their sides.
pub(super) fn costs(report: &Report) -> Table {
    let of_sides = report.models.first().is_some_and(has_sides);
    let (before, per_token): (&[Column], &[Column]) = match of_sides {
        true => (&[], &[]),
        false => (&BEFORE, &PER_TOKEN),
    };
    let [decoding, prefill] = match of_sides {
        true => ["Decoding target tokens/s", "Encoding source tokens/s"],
        false => ["Decoding tokens/s", "Prefill tokens/s"],
    };
    let names = |columns: &[Column]| columns.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let header = [
        vec!["Model"],
        names(before),
        vec!["Parameters", "MB of weights", "share"],
        names(per_token),
        vec![decoding, "ratio", prefill, "ratio"],
    ];
    let header = header.concat().into_iter().map(str::to_owned).collect();
    let rows = report.models.iter().map(|model| {
        let (cost, speed) = (&model.cost, &model.speed);
        let mut cells = vec![model.name.clone()];
        cells.extend(of_first_side(model, before));
        cells.extend([
            thousands(cost.parameters),
            format!("{:.1}", cost.weight_bytes as f64 / 1e6),
            percent(cost.share_of_bytes),
        ]);
        cells.extend(of_first_side(model, per_token));
        cells.extend([
            format!("{:.1}", speed.decoding),
            format!("{:.2}", speed.decoding_ratio),
            format!("{:.0}", speed.prefill),
            format!("{:.2}", speed.prefill_ratio),
        ]);
        cells
    });
    aligned(header, rows, 1 + before.len())
}

/// The costs of encoder and decoder; `None` for models that have no sides.
pub(super) fn sides(report: &Report) -> Option<Table> {
    report.models.first().filter(|model| has_sides(model))?;
    let columns = || BEFORE.into_iter().chain(PER_TOKEN);
    let header = ["Model", "Side"].into_iter();
    let header = header.chain(columns().map(|(name, _)| name));
    let header = header.map(str::to_owned).collect();
    let rows = report.models.iter().flat_map(|model| {
        let sides = model.stacks.iter().zip(model.cost.tokens.iter());
        let names = ["encoder", "decoder"].into_iter().zip(sides);
        names.map(|(side, (stack, cost))| {
            let mut cells = vec![model.name.clone(), side.to_owned()];
            cells.extend(columns().map(|(_, cell)| cell(stack, cost)));
            cells
        })
    });
    Some(aligned(header, rows, 2 + BEFORE.len()))
}

fn has_sides(model: &ModelReport) -> bool {
    matches!(model.stacks, Sides::Two { .. })
}

fn of_first_side(model: &ModelReport, columns: &[Column]) -> Vec<String> {
    let side = model.stacks.iter().zip(model.cost.tokens.iter()).next();
    let cells = side.into_iter().flat_map(|(stack, cost)| {
        let columns = columns.iter();
        columns.map(move |(_, cell)| cell(stack, cost))
    });
    cells.collect()
}
