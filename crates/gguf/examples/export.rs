//! Writes a model directory as a GGUF file: `cargo run --example export -- DIRECTORY FILE.gguf [TYPE]`
//!
//! TYPE is F32, F16, BF16, Q8_0 or Q4_0; by default that of packed matrices, or F32 if there are none.

use std::error::Error;
use std::path::Path;

use iiet_gguf::{TensorType, export_llama};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, file, kind) = match arguments.as_slice() {
        [directory, file] => (directory, file, None),
        [directory, file, kind] => (directory, file, Some(kind)),
        _ => return Err("usage: export DIRECTORY FILE.gguf [TYPE]".into()),
    };
    let kind = match kind {
        None => None,
        Some(name) => {
            let kind = TensorType::from_name(name);
            Some(kind.ok_or_else(|| format!("{name} is not a type"))?)
        }
    };
    let record = export_llama(Path::new(directory), Path::new(file), kind)?;
    println!("{file}: {} bytes", record.bytes);
    Ok(())
}
