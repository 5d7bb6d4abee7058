//! Compares the files of a directory with its manifest: `cargo run --example verify -- DIRECTORY`

use std::error::Error;
use std::path::PathBuf;

use iiet_files::{FileRecord, Manifest};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: verify DIRECTORY")?;
    let directory = PathBuf::from(directory);
    let manifest = Manifest::read(&directory)?.ok_or("the directory has no manifest")?;
    let mut damaged = 0;
    for (name, expected) in manifest.files() {
        match FileRecord::of(&directory.join(name)) {
            Ok(found) if found == *expected => println!("{name}: {} bytes, whole", found.bytes),
            Ok(found) => {
                damaged += 1;
                println!("{name}: damaged: {found:?}, expected {expected:?}");
            }
            Err(error) => {
                damaged += 1;
                println!("{name}: {error}");
            }
        }
    }
    match damaged {
        0 => Ok(()),
        n => Err(format!("{n} files differ from the manifest").into()),
    }
}
