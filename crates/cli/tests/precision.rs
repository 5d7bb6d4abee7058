//! `--precision` on the command line.

use std::path::Path;
use std::process::{Command, Output};

use safetensors::SafeTensors;

fn iiet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .output()
        .unwrap()
}

fn logits(precision: &str) -> Vec<f32> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/golden/models/rk4");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    let (model, out) = (golden.display().to_string(), out.display().to_string());
    let output = iiet(&[
        "logits",
        "--model",
        &model,
        "--ids",
        "1,2,3;4,5,6",
        "--out",
        &out,
        "--precision",
        precision,
    ]);
    assert!(output.status.success(), "{output:?}");
    let bytes = std::fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file
        .tensor("logits")
        .unwrap()
        .data()
        .as_chunks::<4>()
        .0
        .to_vec();
    data.into_iter().map(f32::from_le_bytes).collect()
}

#[test]
fn logits_in_half_precision_are_close_to_f32_but_not_equal() {
    let wide = logits("f32");
    let largest = wide.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    for (precision, tolerance) in [("bf16", 2e-2), ("f16", 4e-3)] {
        let half = logits(precision);
        let apart = half.iter().zip(&wide).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f32::max);
        assert!(
            apart > 0.0 && apart < tolerance * largest,
            "{precision}: {apart} of {largest}"
        );
    }
}

#[test]
fn an_unknown_name_is_an_error_listing_the_known_ones() {
    for command in ["logits", "generate", "eval"] {
        let output = iiet(&[command, "--precision", "fp16"]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            message.contains("'fp16' for '--precision <TYPE>'")
                && message.contains("f32, bf16, f16"),
            "{message}"
        );
    }
}
