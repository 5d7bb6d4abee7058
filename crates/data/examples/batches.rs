//! Prepares a text file and prints the rows of a batch.
//!
//! ```sh
//! cargo run --workspace --example batches -- FILE.txt
//! ```

use iiet_data::{DataConfig, MixedBatches, PreparedSource, SourceSpec, prepare_corpus};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: batches FILE")?;
    let config = DataConfig {
        source: SourceSpec::One(file),
        vocab_size: 1024,
        cache: std::env::temp_dir().join("iiet-batches-example"),
        ..DataConfig::default()
    };
    // A second call reuses the corpus prepared by the first.
    let corpus = prepare_corpus(&config, &())?;
    for prepared in corpus.sources.iter().filter_map(PreparedSource::prepared) {
        println!("prepared in {}", prepared.directory.display());
    }

    // The batch of any step is a function of the seed and the step.
    let (rows, seq, seed) = (4, 16, 0);
    let batches = MixedBatches::of(&corpus.train(seq)?, rows, seed)?;
    let batch = batches.get(1_000)?;
    for row in batch.inputs.chunks(seq) {
        println!("{:?}", corpus.tokenizer.decode(row)?);
    }
    println!(
        "{} of {} targets have a positive weight",
        batch.counted(),
        rows * seq
    );
    Ok(())
}
