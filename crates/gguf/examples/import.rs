//! Writes a GGUF file as a model directory: `cargo run --example import -- FILE.gguf DIRECTORY`

use std::error::Error;
use std::path::Path;

use iiet_gguf::import_llama;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, directory] = arguments.as_slice() else {
        return Err("usage: import FILE.gguf DIRECTORY".into());
    };
    Ok(import_llama(Path::new(file), Path::new(directory))?)
}
