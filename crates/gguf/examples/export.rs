//! Writes a model directory as a GGUF file: `cargo run --example export -- DIRECTORY FILE.gguf [TYPE]`
//!
//! TYPE is F32 (default), F16, BF16, Q8_0 or Q4_0.

use std::error::Error;
use std::path::Path;

use iiet_gguf::{TensorType, export_llama};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, file, kind) = match arguments.as_slice() {
        [directory, file] => (directory, file, "F32"),
        [directory, file, kind] => (directory, file, kind.as_str()),
        _ => return Err("usage: export DIRECTORY FILE.gguf [TYPE]".into()),
    };
    let kind = TensorType::from_name(kind).ok_or_else(|| format!("{kind} is not a type"))?;
    let record = export_llama(Path::new(directory), Path::new(file), kind)?;
    println!("{file}: {} bytes, {kind}", record.bytes);
    Ok(())
}
