//! Atomic writing of files, and directories whose completeness can be verified.
//!
//! - [`write_file`] writes a file under a temporary name, syncs it and renames it; [`install_directory`] does
//!   so with a directory, [`NewDirectory`] with one that must not replace another.
//! - [`Manifest`] records length and blake3 of the files of a directory, for readers to compare.
//! - [`FileLock`] excludes other processes.
//! - [`open_regular`] opens input and rejects files that could block or never end: pipes, devices.
//! - [`SafetensorsHeader`] is the header of a safetensors file that is not trusted.
//! - With the feature `hub`, `hub_cache` and `hub_api` are the Hugging Face hub's, as environment variables say.
//!
//! ```
//! use std::io::Write;
//!
//! use iiet_files::{Manifest, write_file};
//!
//! let folder = std::env::temp_dir().join(format!("iiet-files-{}", std::process::id()));
//! std::fs::create_dir_all(&folder)?;
//! let record = write_file(&folder.join("a.txt"), |file| file.write_all(b"text"))?;
//! assert_eq!(record.bytes, 4);
//!
//! let mut manifest = Manifest::new();
//! manifest.add("a.txt", record);
//! manifest.write(&folder)?;
//!
//! let manifest = Manifest::read(&folder)?.expect("it was just written");
//! assert!(manifest.check(&folder, "a.txt", b"text").is_ok());
//! assert!(manifest.check(&folder, "a.txt", b"test").is_err());
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod durable;
mod error;
mod hash;
#[cfg(feature = "hub")]
mod hub;
mod lock;
mod manifest;
mod new_directory;
mod regular;
mod safetensors;

pub use durable::{
    HashingWriter, beside, check_replaceable, install_directory, remove_directory, sync_directory,
    write_file,
};
pub use error::FilesError;
pub use hash::{FileRecord, hash_files};
#[cfg(feature = "hub")]
pub use hub::{hub_api, hub_cache};
pub use lock::FileLock;
pub use manifest::{MANIFEST, Manifest};
pub use new_directory::NewDirectory;
pub use regular::{append_regular, open_regular, read_regular, read_regular_text};
pub use safetensors::{SafetensorsEntry, SafetensorsHeader};

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
