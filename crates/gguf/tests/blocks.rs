//! Values and bytes that ggml's own library computed, in a file that gguf-py wrote: `benches/peers/gguf_blocks.py`.

use std::path::Path;

use iiet_gguf::{GgufReader, TensorType, quantize};

fn data() -> GgufReader<impl std::io::Read + std::io::Seek> {
    GgufReader::open(Path::new("tests/data/blocks.gguf")).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn dequantised_values_equal_ggmls() {
    let mut file = data();
    for (kind, elements) in [
        (TensorType::Q8_0, 24 * 32),
        (TensorType::Q4_0, 24 * 32),
        (TensorType::Q4K, 10 * 256),
        (TensorType::Q6K, 8 * 256),
    ] {
        assert_eq!(file.tensor(kind.name()).unwrap().kind, kind);
        let found = file.read_f32(kind.name()).unwrap();
        let expected = file.read_f32(&format!("{kind}.values")).unwrap();
        assert_eq!(found.len(), elements);
        assert_eq!(bits(&found), bits(&expected), "{kind}");
    }
}

#[test]
fn quantised_blocks_equal_ggmls() {
    let mut file = data();
    for kind in [TensorType::Q8_0, TensorType::Q4_0] {
        let values = file.read_f32(&format!("{kind}.input")).unwrap();
        let expected = file.read(&format!("{kind}.quantised")).unwrap();
        assert_eq!(
            quantize(kind, &values, "input").unwrap(),
            expected,
            "{kind}"
        );
    }
}
