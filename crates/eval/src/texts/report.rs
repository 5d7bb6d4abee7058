//! Scores of texts as a table and as JSON.

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde_json::{Map, Value, json};

use super::bootstrap::{Interval, RougeInterval};
use super::rouge::RougeScore;

/// The scores of all systems.
#[derive(Clone, Debug, PartialEq)]
pub struct TextReport {
    /// Segments of each text.
    pub segments: usize,
    /// The names of the references.
    pub references: Vec<String>,
    /// Systems, in the order given; in a paired test the first is the baseline.
    pub systems: Vec<(String, Vec<TextScore>)>,
}

/// One metric of one system.
#[derive(Clone, Debug, PartialEq)]
pub struct TextScore {
    /// The name that sacreBLEU or rouge-score has for it.
    pub name: &'static str,
    /// The score, 0 to 100; of ROUGE the mean F over segments, 0 to 1.
    pub score: f64,
    /// All that the score depends on, as sacreBLEU writes it.
    pub signature: String,
    /// What sacreBLEU prints behind the score.
    pub detail: Option<String>,
    /// The confidence interval of sacreBLEU's kind.
    pub interval: Option<Interval>,
    /// Against the first system, in a paired test.
    pub p_value: Option<f64>,
    /// What only ROUGE has.
    pub rouge: Option<RougeDetail>,
    /// The score of each segment by itself, if asked for; BLEU's with effective order.
    pub of_segments: Option<Vec<f64>>,
}

/// The rest of a ROUGE score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RougeDetail {
    /// Means over segments.
    pub mean: RougeScore,
    /// rouge-score's confidence interval.
    pub interval: Option<RougeInterval>,
}

impl TextReport {
    /// A row for each metric and system; scores as sacreBLEU prints them, ROUGE with four digits.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["Metric", "System", "Score", "95 % interval", "p", "Detail"]);
        let metrics = self.systems.first().map_or(0, |(_, scores)| scores.len());
        for metric in 0..metrics {
            for (name, scores) in &self.systems {
                let score = &scores[metric];
                table.add_row([
                    score.name.to_owned(),
                    name.clone(),
                    score.digits(score.score),
                    score.interval_text(),
                    score.p_value_text(self.systems[0].1[metric].score),
                    score.detail_text(),
                ]);
            }
        }
        table
    }

    /// The name and signature of each metric.
    pub fn signatures(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let scores = self
            .systems
            .first()
            .into_iter()
            .flat_map(|(_, scores)| scores);
        scores.map(|score| (score.name, &*score.signature))
    }

    /// All numbers, unrounded, by the names that sacreBLEU's and rouge-score's output has.
    pub fn to_json(&self) -> Value {
        let systems = self.systems.iter().map(|(name, scores)| {
            let scores: Vec<Value> = scores.iter().map(TextScore::to_json).collect();
            json!({ "system": name, "scores": scores })
        });
        json!({
            "segments": self.segments,
            "references": self.references,
            "systems": systems.collect::<Vec<_>>(),
            "iiet_version": env!("CARGO_PKG_VERSION"),
        })
    }
}

impl TextScore {
    /// A number with as many digits as the score is printed with.
    pub(crate) fn digits(&self, value: f64) -> String {
        match self.rouge {
            Some(_) => format!("{value:.4}"),
            None => format!("{value:.2}"),
        }
    }

    /// The 95 % interval as `iiet score` prints it; empty without one.
    pub fn interval_text(&self) -> String {
        let of_rouge = self.rouge.and_then(|rouge| rouge.interval);
        match (self.interval, of_rouge) {
            (Some(Interval { mean, half_width }), _) => {
                format!("{} ± {}", self.digits(mean), self.digits(half_width))
            }
            (None, Some(RougeInterval { low, high, .. })) => {
                let [low, high] = [low, high].map(|score| self.digits(score.fmeasure));
                format!("{low} to {high}")
            }
            (None, None) => String::new(),
        }
    }

    /// The p-value, with a star if it is at most 0.05 and the score differs from the baseline's; empty
    /// without one.
    pub(crate) fn p_value_text(&self, baseline: f64) -> String {
        self.p_value.map_or_else(String::new, |p| {
            let differs = self.score != baseline;
            let star = if p <= 0.05 && differs { "*" } else { "" };
            format!("{p:.4}{star}")
        })
    }

    fn detail_text(&self) -> String {
        match (&self.detail, self.rouge) {
            (Some(detail), _) => detail.clone(),
            (None, Some(RougeDetail { mean, .. })) => {
                format!("P = {:.4} R = {:.4}", mean.precision, mean.recall)
            }
            (None, None) => String::new(),
        }
    }

    /// The numbers, unrounded, by the names that sacreBLEU's and rouge-score's output has.
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        let mut insert = |key: &str, value: Value| json.insert(key.to_owned(), value);
        insert("name", self.name.into());
        insert("score", self.score.into());
        insert("signature", self.signature.as_str().into());
        if let Some(detail) = &self.detail {
            insert("verbose_score", detail.as_str().into());
        }
        if let Some(Interval { mean, half_width }) = self.interval {
            insert("confidence_mean", mean.into());
            insert("confidence_var", half_width.into());
        }
        if let Some(p) = self.p_value {
            insert("p_value", p.into());
        }
        if let Some(RougeDetail { mean, interval }) = self.rouge {
            insert("precision", mean.precision.into());
            insert("recall", mean.recall.into());
            insert("fmeasure", mean.fmeasure.into());
            if let Some(RougeInterval { low, mid, high }) = interval {
                insert("low", of_rouge(&low));
                insert("mid", of_rouge(&mid));
                insert("high", of_rouge(&high));
            }
        }
        if let Some(scores) = &self.of_segments {
            insert("segment_scores", scores.as_slice().into());
        }
        Value::Object(json)
    }
}

fn of_rouge(score: &RougeScore) -> Value {
    json!({
        "precision": score.precision,
        "recall": score.recall,
        "fmeasure": score.fmeasure,
    })
}
