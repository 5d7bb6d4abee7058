//! Prepares pairs of source and target, and prints some of them and the size of batches.
//!
//! ```sh
//! cargo run --workspace --example sequence_pairs -- 10
//! cargo run --workspace --example sequence_pairs -- 10 train.en train.de
//! ```
//!
//! Without files: the code of the locked dependencies' public functions, and the first sentences of their
//! documentation.

use iiet_data::{AlignedFiles, BatchSize, DataConfig, SourceSpec, prepare_corpus};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (count, source) = match &arguments[..] {
        [count] => (count, SourceSpec::One("cargo-docs".to_owned())),
        [count, source, target] => {
            let (source, target) = (source.clone(), target.clone());
            (count, SourceSpec::Aligned(AlignedFiles { source, target }))
        }
        _ => return Err("usage: sequence_pairs COUNT [SOURCES TARGETS]".into()),
    };
    let count: usize = count.parse()?;
    let config = DataConfig {
        source,
        cache: std::env::temp_dir().join("iiet-sequence-pairs-example"),
        ..DataConfig::default()
    };
    let corpus = prepare_corpus(&config, &())?;

    // At most 512 tokens a side, and 4096 tokens of sources and of targets in a batch.
    let (seq, size, seed) = (512, BatchSize::Tokens(4096), 0);
    let batches = corpus.training_batches(seq, size, seed)?;
    let pairs = batches.pairs().ok_or("no pairs")?;
    let total = pairs.count() as usize;
    for place in 0..count.min(total) {
        // Evenly spaced.
        let pair = (2 * place + 1) * total / (2 * count.min(total));
        let (source, target) = pairs.texts(pair as u32, &corpus.tokenizer)?;
        println!("{source}\n=> {target}\n");
    }
    println!("{total} pairs, {} left out as too long", pairs.left_out());
    for index in 0..3 {
        let batch = batches.get(index)?;
        let sources = batch.source.as_ref().ok_or("no sources")?;
        println!(
            "batch {index}: {} pairs, sources of {} tokens, targets of {}",
            batch.batch, sources.seq, batch.seq
        );
    }
    Ok(())
}
