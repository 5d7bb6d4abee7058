//! Parquet files from another writer: checksums are verified.

use std::path::Path;

use iiet_data::{DataConfig, DataError, SourceSpec, prepare};

#[test]
fn a_flipped_bit_in_a_page_with_a_checksum_is_an_error() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/checksums.parquet");
    let bytes = std::fs::read(file).unwrap();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.parquet");
    let config = DataConfig {
        source: SourceSpec::One(path.display().to_string()),
        vocab_size: 300,
        cache: root.path().join("cache"),
        ..DataConfig::default()
    };
    std::fs::write(&path, &bytes).unwrap();
    let prepared = prepare(&config, &()).unwrap();
    assert_eq!(
        prepared.train.documents() + prepared.validation.documents(),
        40
    );

    // Texts at the page's start, middle and end; its header and the footer contain statistics.
    let place = |text: &str| {
        let mut places = bytes.windows(text.len());
        places.position(|part| part == text.as_bytes()).unwrap()
    };
    let places = ["number 1,", "number 20,", "number 38,"].map(place);
    for (place, bit) in places.into_iter().zip([0, 1, 4]) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << bit;
        assert!(
            damaged[place].is_ascii(),
            "the damaged byte must be valid text"
        );
        std::fs::write(&path, damaged).unwrap();
        let error = prepare(&config, &()).unwrap_err();
        assert!(matches!(error, DataError::Bad(_)), "{error}");
        assert!(error.to_string().contains("CRC"), "{error}");
    }
}
