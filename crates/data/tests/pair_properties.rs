//! Properties of batches of pairs, and of preparing pairs from arbitrary bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use iiet_data::{
    AlignedFiles, BatchSize, BucketedBatches, DataConfig, DataError, OnError, SequencePairs,
    SourceSpec, TokenFile, TokenWriter, prepare,
};
use proptest::prelude::*;

/// Writes pairs of which number `i` has sides of the token `i + 1` and these lengths, ends included.
fn write(lengths: &[(usize, usize)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    let mut writer = TokenWriter::create_sources(&path, 300, [9; 32]).unwrap();
    for (i, (source, target)) in lengths.iter().enumerate() {
        for (side, length) in [source, target].into_iter().enumerate() {
            let mut tokens = vec![i as u32 + 1; length - 1];
            tokens.push(0);
            writer.push(&tokens, 1).unwrap();
            if side == 0 {
                writer.end_prompt();
            }
        }
        writer.end_document().unwrap();
    }
    writer.finish().unwrap();
    (folder, path)
}

fn lengths() -> impl Strategy<Value = Vec<(usize, usize)>> {
    // At least one token beside the end, to tell the pairs apart.
    prop::collection::vec((2_usize..20, 2_usize..12), 1..60)
}

fn size() -> impl Strategy<Value = BatchSize> {
    prop_oneof![
        (1_usize..20).prop_map(BatchSize::Rows),
        (16_usize..100).prop_map(BatchSize::Tokens),
    ]
}

/// The numbers of the pairs of a batch, by the first tokens of their sources.
fn numbers(batch: &iiet_data::Batch) -> Vec<usize> {
    let sources = batch.source.as_ref().unwrap();
    let firsts = sources.ids.chunks(sources.seq).map(|row| row[0]);
    firsts.map(|first| first as usize - 1).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_pair_occurs_once_per_epoch_in_batches_within_the_size(
        lengths in lengths(), size in size(), seed in any::<u64>(),
    ) {
        let (_folder, path) = write(&lengths);
        // Sides of up to 16 tokens, so that each pair fits in the smallest number of tokens.
        let pairs = SequencePairs::new(TokenFile::open(&path).unwrap(), 16);
        let short: Vec<usize> = (0..lengths.len()).filter(|i| lengths[*i].0 <= 16).collect();
        let Ok(pairs) = pairs else {
            prop_assert!(short.is_empty());
            return Ok(());
        };
        prop_assert_eq!(pairs.left_out() as usize, lengths.len() - short.len());
        let batches = BucketedBatches::new(pairs, size, seed).unwrap();
        let per_epoch = batches.batches();
        let mut cuts: Vec<BTreeMap<(usize, usize, usize), usize>> = Vec::new();
        for epoch in 0..3 {
            let mut seen = Vec::new();
            let mut shapes = BTreeMap::new();
            for index in epoch * per_epoch..(epoch + 1) * per_epoch {
                let batch = batches.get(index).unwrap();
                let sources = batch.source.as_ref().unwrap();
                let rows = numbers(&batch);
                prop_assert_eq!((rows.len(), sources.lengths.len()), (batch.batch, batch.batch));
                match size {
                    BatchSize::Rows(most) => prop_assert!(batch.batch <= most),
                    BatchSize::Tokens(most) => {
                        prop_assert!(batch.batch * sources.seq <= most);
                        prop_assert!(batch.batch * batch.seq <= most);
                    }
                }
                // As wide as the longest, and no wider.
                let longest = rows.iter().map(|i| lengths[*i]);
                prop_assert_eq!(sources.seq, longest.clone().map(|(s, _)| s).max().unwrap());
                prop_assert_eq!(batch.seq, longest.map(|(_, t)| t).max().unwrap());
                let counted: Vec<usize> = batch.counted_targets().map(Iterator::count).collect();
                let expected: Vec<usize> = rows.iter().map(|i| lengths[*i].1).collect();
                prop_assert_eq!(counted, expected);
                *shapes.entry((batch.batch, sources.seq, batch.seq)).or_default() += 1;
                seen.extend(rows);
            }
            seen.sort();
            prop_assert_eq!(&seen, &short);
            cuts.push(shapes);
        }
        prop_assert_eq!(&cuts[0], &cuts[1]);
        prop_assert_eq!(&cuts[0], &cuts[2]);
        prop_assert_eq!(batches.rows_before(3 * per_epoch), 3 * short.len() as u128);
    }

    #[test]
    fn a_batch_is_a_function_of_seed_and_index_alone(
        lengths in lengths(), size in size(), seed in any::<u64>(),
        indices in prop::collection::vec(prop_oneof![0_u64..200, any::<u64>()], 1..12),
    ) {
        let (_folder, path) = write(&lengths);
        let file = TokenFile::open(&path).unwrap();
        let fresh = || {
            let pairs = SequencePairs::new(file.clone(), 16).ok()?;
            Some(BucketedBatches::new(pairs, size, seed).unwrap())
        };
        let Some(batches) = fresh() else { return Ok(()) };
        for index in indices {
            let batch = batches.get(index).unwrap();
            prop_assert_eq!(&fresh().unwrap().get(index).unwrap(), &batch);
            prop_assert_eq!(batches.rows_before(index), fresh().unwrap().rows_before(index));
        }
    }

    /// A document table may contain any values.
    #[test]
    fn changed_tables_of_pairs_are_detected_and_do_not_panic(
        row in 0_usize..6, value in prop_oneof![0_u64..9, any::<u64>()],
    ) {
        let (_folder, path) = write(&[(3, 2), (2, 3)]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = 144 + 10 * 2 + 8 * row;
        let before = bytes[at..at + 8].to_vec();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let changed = bytes[at..at + 8] != before;
        std::fs::write(&path, bytes).unwrap();
        let read = || -> Result<(), DataError> {
            let file = TokenFile::open(&path)?;
            let pairs = SequencePairs::new(file.clone(), 16)?;
            BucketedBatches::new(pairs, BatchSize::Rows(2), 0)?.get(0)?;
            file.verify()
        };
        prop_assert_eq!(read().is_err(), changed);
    }

    #[test]
    fn aligned_files_of_any_bytes_give_the_valid_pairs(source in side(), target in side()) {
        let folder = tempfile::tempdir().unwrap();
        let lines = |side: &[Vec<u8>]| -> Vec<u8> { side.concat() };
        let (source, target) = (lines(&source), lines(&target));
        let config = config(folder.path(), &source, &target);
        let [left, right] = [&source, &target].map(|bytes| split(bytes));
        let found = prepare(&config, &());
        if left.len() != right.len() {
            let is_refused = matches!(found, Err(DataError::LineCounts { .. }));
            prop_assert!(is_refused, "{} and {}", left.len(), right.len());
            return Ok(());
        }
        let text = |line: &[u8]| {
            let text = std::str::from_utf8(line).ok()?.trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let expected: Vec<(String, String)> = left
            .iter()
            .zip(&right)
            .filter_map(|(left, right)| Some((text(left)?, text(right)?)))
            .collect();
        // One pair to train on, and one held out.
        if expected.len() < 2 {
            prop_assert!(found.is_err());
            return Ok(());
        }
        let prepared = found.unwrap();
        prop_assert_eq!(prepared.skipped.count as usize, left.len() - expected.len());
        let mut texts = Vec::new();
        for file in [&prepared.train, &prepared.validation] {
            let pairs = SequencePairs::new(file.clone(), usize::MAX).unwrap();
            for pair in pairs.pairs_of_texts(&prepared.tokenizer) {
                texts.push(pair.unwrap());
            }
        }
        texts.sort();
        let mut expected = expected;
        expected.sort();
        prop_assert_eq!(texts, expected);
    }
}

/// Lines of text, of white space, of NULs and of bytes that are no UTF-8, with both kinds of ends.
fn side() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let line = prop_oneof![
        4 => r"[a-zé日\x00 ]{1,8}".prop_map(String::into_bytes),
        1 => Just(Vec::new()),
        1 => Just("\u{a0}\t".as_bytes().to_vec()),
        1 => Just(b"\xff\xc3".to_vec()),
    ];
    let end = prop_oneof![Just(&b"\n"[..]), Just(&b"\r\n"[..])];
    let lines = prop::collection::vec((line, end), 4..6);
    lines.prop_map(|lines| {
        let lines = lines.into_iter();
        lines.map(|(line, end)| [&line, end].concat()).collect()
    })
}

/// The lines of a file that ends with a line end.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    lines.pop();
    lines
}

fn config(root: &Path, source: &[u8], target: &[u8]) -> DataConfig {
    let write = |name: &str, bytes: &[u8]| {
        let path = root.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let files = AlignedFiles {
        source: write("a.en", source),
        target: write("a.de", target),
    };
    DataConfig {
        source: SourceSpec::Aligned(files),
        vocab_size: 280,
        on_error: OnError::Skip,
        cache: root.join("cache"),
        ..DataConfig::default()
    }
}
