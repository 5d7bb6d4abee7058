//! The default corpus on this workspace's own dependencies, without training on it.

use iiet_data::{CargoSummary, default_corpus};

#[test]
fn the_default_corpus_is_large_divided_and_reproducible() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (files, summary): (Vec<_>, CargoSummary) = default_corpus(folder, 0.05).unwrap();
    assert!(summary.crates > 50, "{} crates", summary.crates);
    assert!(summary.bytes > 10_000_000, "{} bytes", summary.bytes);
    let share = summary.held_out_bytes as f64 / summary.bytes as f64;
    assert!((0.045..=0.055).contains(&share), "{share}");
    assert!(!summary.held_out.is_empty());
    assert_eq!(summary.files, files.len() as u64);
    assert!(
        !files
            .iter()
            .any(|file| file.to_string_lossy().contains("windows-sys"))
    );
    assert_eq!(default_corpus(folder, 0.05).unwrap(), (files, summary));
}
