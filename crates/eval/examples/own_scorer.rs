//! Evaluates a custom model: byte bigrams counted in the first half of a text, on the second half.
//!
//!     cargo run --workspace --example own_scorer -- FILE.txt

use std::error::Error;

use iiet_eval::{
    Continuation, EvalError, Generation, Progress, RollingScore, Scored, Scorer, Settings,
    Unscorable, prepare, task,
};

/// How often each byte followed each other one, plus one.
struct Bigrams(Vec<[f64; 256]>);

impl Bigrams {
    fn count(text: &[u8]) -> Self {
        let mut counts = vec![[1.0; 256]; 256];
        for pair in text.windows(2) {
            counts[usize::from(pair[0])][usize::from(pair[1])] += 1.0;
        }
        Self(counts)
    }

    /// `log p` in nats of a text after a byte.
    fn log_likelihood(&self, mut before: u8, text: &[u8]) -> f64 {
        let mut sum = 0.0;
        for byte in text {
            let row = &self.0[usize::from(before)];
            sum += (row[usize::from(*byte)] / row.iter().sum::<f64>()).ln();
            before = *byte;
        }
        sum
    }
}

impl Scorer for Bigrams {
    fn log_likelihood(
        &self,
        requests: &[Continuation],
        _: &dyn Progress,
    ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
        let score = |request: &Continuation| {
            let before = request.context.bytes().last().unwrap_or(b'\n');
            Ok(Scored {
                log_likelihood: self.log_likelihood(before, request.continuation.as_bytes()),
                is_greedy: false,
            })
        };
        Ok(requests.iter().map(score).collect())
    }

    fn log_likelihood_rolling(
        &self,
        texts: &[String],
        _: &dyn Progress,
    ) -> Result<Vec<RollingScore>, EvalError> {
        let score = |text: &String| RollingScore {
            log_likelihood: self.log_likelihood(b'\n', text.as_bytes()),
            tokens: text.len() as u64,
        };
        Ok(texts.iter().map(score).collect())
    }

    fn generate_until(
        &self,
        requests: &[Generation],
        _: &dyn Progress,
    ) -> Result<Vec<String>, EvalError> {
        Ok(vec![String::new(); requests.len()])
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: own_scorer FILE.txt")?;
    let text = std::fs::read_to_string(&path)?;
    let half = text.floor_char_boundary(text.len() / 2);
    let held_out = std::env::temp_dir().join(format!("own-scorer-{}.txt", std::process::id()));
    std::fs::write(&held_out, &text[half..])?;
    let settings = Settings {
        data: Some(held_out.clone()),
        ..Settings::default()
    };
    let model = Bigrams::count(&text.as_bytes()[..half]);
    let evaluated = prepare(task("text")?, &settings)?.evaluate(&model, &())?;
    for metric in &evaluated.metrics {
        println!("{:<18} {:.4}", metric.name, metric.value);
    }
    std::fs::remove_file(held_out)?;
    Ok(())
}
