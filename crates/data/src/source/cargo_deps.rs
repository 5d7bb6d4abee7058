//! The default corpus: `.rs` and `.md` files of the workspace's locked dependencies.
//!
//! `Cargo.lock` pins every byte of a registry crate, so two machines with the same lock file get
//! the same corpus. The corpus therefore does not depend on the platform, file times, the
//! registry's location or the features of a build: packages for all platforms are included, ordered
//! by name and version, and their files by path.
//!
//! Files that mainly consist of lists are left out, and counted by reason in the manifest of the
//! prepared directory. `generated.rs` has the rules.

mod files;
mod generated;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Format, Item, Split, cargo_docs};
use crate::config::Validation;
use crate::error::DataError;

/// Changes whenever the rules change, so that a corpus prepared by other rules is not reused.
pub(crate) const RULES: u32 = 1;

/// The maximum number of bytes per crate (all versions together), so that no crate dominates.
const CRATE_BYTES: u64 = 2 << 20;

/// The reason why a file was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// The crate is on the list of generated bindings.
    BindingsCrate,
    /// Over 512 KiB.
    LargeFile,
    /// The first lines say that the file is generated.
    SaysGenerated,
    /// Most lines are constants, foreign functions or other declarations without code.
    Declarations,
    /// Most characters are digits of a table.
    Table,
    /// Lines are too long to be written by hand.
    LongLines,
    /// Not UTF-8, or empty.
    NotText,
    /// Identical to an earlier file.
    Duplicate,
    /// The crate has reached its maximum number of bytes.
    CrateShare,
}

/// The content of the default corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CargoSummary {
    /// Crates with at least one included file, counted by name.
    pub crates: u64,
    /// Number of included files.
    pub files: u64,
    /// Bytes of included files.
    pub bytes: u64,
    /// Bytes of the crates held out.
    pub held_out_bytes: u64,
    /// The names of the crates held out for validation.
    pub held_out: Vec<String>,
    /// Files and bytes left out, by reason.
    pub left_out: BTreeMap<LeftOut, (u64, u64)>,
}

/// A registry package of the lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub name: String,
    pub version: String,
    /// Name, version and registry, in cargo's format.
    pub id: String,
    pub folder: PathBuf,
}

/// The registry packages of the workspace that contains `folder`, by name and version.
pub(crate) fn packages(folder: &Path) -> Result<Vec<Package>, DataError> {
    Ok(locked(folder)?.1)
}

/// The root of the workspace around `folder`, and its registry packages by name and version.
fn locked(folder: &Path) -> Result<(PathBuf, Vec<Package>), DataError> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(folder)
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .map_err(|error| DataError::CargoMetadata {
            message: error.to_string().trim().to_owned(),
        })?;
    let root = metadata.workspace_root.into();
    let mut packages: Vec<_> = metadata
        .packages
        .into_iter()
        .filter(|package| {
            let source = package.source.as_ref();
            source.is_some_and(|source| is_registry(&source.repr))
        })
        .collect();
    packages.sort_by(|a, b| (a.name.as_str(), &a.version).cmp(&(b.name.as_str(), &b.version)));
    let packages = packages
        .into_iter()
        .filter_map(|package| {
            Some(Package {
                name: package.name.to_string(),
                version: package.version.to_string(),
                id: package.id.repr,
                folder: package.manifest_path.parent()?.to_owned().into(),
            })
        })
        .collect();
    Ok((root, packages))
}

fn is_registry(source: &str) -> bool {
    source.starts_with("registry+") || source.starts_with("sparse+")
}

/// An included file.
struct Taken {
    item: Item,
    krate: String,
}

/// The files of the corpus with their parts.
///
/// With `held_out`, whole crates are held out for validation until they make up about that share of
/// the bytes; with `None` everything is for training.
pub(crate) fn corpus(
    packages: &[Package],
    held_out: Option<f64>,
    advance: &dyn Fn(u64),
) -> Result<(Vec<Item>, CargoSummary), DataError> {
    let mut left_out: BTreeMap<LeftOut, (u64, u64)> = BTreeMap::new();
    let mut taken: Vec<Taken> = Vec::new();
    let mut seen = HashSet::new();
    // All versions of a crate share its maximum; the packages are sorted, so they are adjacent.
    for versions in packages.chunk_by(|a, b| a.name == b.name) {
        let mut of_crate = Vec::new();
        for package in versions {
            of_crate.extend(files::list(&package.folder)?);
        }
        let judged: Vec<_> = of_crate
            .par_iter()
            .map(|file| files::judge(file, &versions[0].name))
            .collect::<Result<_, _>>()?;
        let mut kept = Vec::new();
        for (file, verdict) in of_crate.into_iter().zip(judged) {
            advance(file.bytes);
            let verdict = match verdict {
                Ok(hash) if !seen.insert(hash) => Err(LeftOut::Duplicate),
                Ok(hash) => Ok(hash),
                Err(reason) => Err(reason),
            };
            match verdict {
                Ok(hash) => kept.push((file, hash)),
                Err(reason) => count(&mut left_out, reason, file.bytes),
            }
        }
        for (file, within) in share(kept) {
            if !within {
                count(&mut left_out, LeftOut::CrateShare, file.bytes);
                continue;
            }
            taken.push(Taken {
                item: Item::file(&file.path, Format::Text, file.bytes, Some(Split::Train)),
                krate: versions[0].name.clone(),
            });
        }
    }
    Ok(divide(taken, held_out, left_out))
}

fn count(left_out: &mut BTreeMap<LeftOut, (u64, u64)>, reason: LeftOut, bytes: u64) {
    let entry = left_out.entry(reason).or_default();
    entry.0 += 1;
    entry.1 += bytes;
}

/// The files of the default corpus of the workspace that contains `folder`, in order, and those
/// left out; `held_out` is the share of bytes for validation.
///
/// [`prepare`](crate::prepare) calls this; use it directly to examine the selection without
/// tokenising it.
///
/// # Errors
/// [`DataError::CargoMetadata`] if `cargo metadata --locked` fails there.
pub fn default_corpus(
    folder: &Path,
    held_out: f64,
) -> Result<(Vec<PathBuf>, CargoSummary), DataError> {
    let packages = packages(folder)?;
    let (items, summary) = corpus(&packages, Some(held_out), &|_| {})?;
    Ok((items.into_iter().map(|item| item.path).collect(), summary))
}

/// The part of the default corpus that is held out of training, with the default share.
#[derive(Clone, Debug)]
pub struct HeldOutCrates {
    workspace: PathBuf,
    packages: Vec<Package>,
    share: f64,
}

/// A held-out file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOutFile {
    /// `crate-version/path`, with slashes, the same on every machine.
    pub place: String,
    /// Its text.
    pub text: String,
}

impl HeldOutCrates {
    /// Finds the workspace that contains `folder`; no file is read yet.
    ///
    /// # Errors
    /// [`DataError::CargoMetadata`] if `cargo metadata --locked` fails there.
    pub fn locate(folder: &Path) -> Result<Self, DataError> {
        let share = match Validation::default() {
            Validation::Fraction(share) => share,
            Validation::Path(_) | Validation::Aligned(_) => 0.0,
        };
        let (workspace, packages) = locked(folder)?;
        Ok(Self {
            workspace,
            packages,
            share,
        })
    }

    /// The root of the workspace found.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// A short name of everything that determines the files: the packages, the rules and the share.
    pub fn key(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(&RULES.to_le_bytes());
        hash.update(&self.share.to_le_bytes());
        for package in &self.packages {
            hash.update(package.id.as_bytes());
            hash.update(b"\n");
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    /// The code and the summaries of the documented functions that the corpus `cargo-docs` holds out, in its
    /// order.
    ///
    /// # Errors
    /// [`DataError::Io`] if a file cannot be read.
    pub fn summaries(&self) -> Result<Vec<(String, String)>, DataError> {
        let (items, ..) = cargo_docs::corpus(&self.packages, Some(self.share), &|_| {})?;
        let held_out = items
            .into_iter()
            .filter(|item| item.split == Some(Split::Validation));
        Ok(held_out.flat_map(|item| item.pairs.to_vec()).collect())
    }

    /// The files, in the corpus's order.
    ///
    /// # Errors
    /// [`DataError::Io`] if a file cannot be read.
    pub fn read(&self) -> Result<Vec<HeldOutFile>, DataError> {
        let (items, _) = corpus(&self.packages, Some(self.share), &|_| {})?;
        let held_out = items
            .into_iter()
            .filter(|item| item.split == Some(Split::Validation));
        held_out
            .map(|Item { path, .. }| {
                let package = self.packages.iter().find_map(|package| {
                    let inside = path.strip_prefix(&package.folder).ok()?;
                    Some((package, inside))
                });
                let (package, inside) = package.expect("invariant: files lie in their packages");
                let inside = inside.to_string_lossy().replace('\\', "/");
                Ok(HeldOutFile {
                    place: format!("{}-{}/{inside}", package.name, package.version),
                    text: std::fs::read_to_string(&path).map_err(DataError::io(&path))?,
                })
            })
            .collect()
    }
}

/// Marks the files of one crate within its maximum. If not all fit, the choice is by content hash,
/// so that it is spread over the crate and does not depend on the order of names.
fn share(files: Vec<(files::SourceFile, blake3::Hash)>) -> Vec<(files::SourceFile, bool)> {
    let mut by_hash: Vec<usize> = (0..files.len()).collect();
    by_hash.sort_by_key(|&at| *files[at].1.as_bytes());
    let mut within = vec![false; files.len()];
    let mut bytes = 0;
    for at in by_hash {
        if bytes + files[at].0.bytes <= CRATE_BYTES {
            bytes += files[at].0.bytes;
            within[at] = true;
        }
    }
    let files = files.into_iter().map(|(file, _)| file);
    files.zip(within).collect()
}

/// Holds out crates, in the order of their names' hashes, until the share is reached. A crate that
/// would exceed it by more than a tenth is skipped.
fn divide(
    mut taken: Vec<Taken>,
    held_out: Option<f64>,
    left_out: BTreeMap<LeftOut, (u64, u64)>,
) -> (Vec<Item>, CargoSummary) {
    let mut crates: BTreeMap<&str, u64> = BTreeMap::new();
    for file in &taken {
        *crates.entry(&file.krate).or_default() += file.item.bytes;
    }
    let bytes: u64 = crates.values().sum();
    let goal = held_out.unwrap_or(0.0) * bytes as f64;
    let mut order: Vec<(&str, u64)> = crates.iter().map(|(&name, &bytes)| (name, bytes)).collect();
    order.sort_by_key(|(name, _)| *blake3::hash(format!("held out: {name}").as_bytes()).as_bytes());
    let mut chosen = HashSet::new();
    let mut held_out_bytes = 0;
    for (name, bytes) in order {
        let with = held_out_bytes + bytes;
        if (held_out_bytes as f64) < goal && with as f64 <= goal * 1.1 {
            chosen.insert(name.to_owned());
            held_out_bytes = with;
        }
    }
    let summary_of = |chosen: &HashSet<String>| {
        let mut names: Vec<String> = chosen.iter().cloned().collect();
        names.sort();
        names
    };
    let summary = CargoSummary {
        crates: crates.len() as u64,
        files: taken.len() as u64,
        bytes,
        held_out_bytes,
        held_out: summary_of(&chosen),
        left_out,
    };
    for file in &mut taken {
        if chosen.contains(&file.krate) {
            file.item.split = Some(Split::Validation);
        }
    }
    (taken.into_iter().map(|file| file.item).collect(), summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn versions_share_a_part_and_copies_count_once() {
        let root = tempfile::tempdir().unwrap();
        let mut packages = Vec::new();
        for number in 0..40 {
            for version in ["1.0.0", "2.0.0"] {
                let name = format!("crate-{number}");
                let folder = root.path().join(format!("{name}-{version}"));
                fs::create_dir_all(folder.join("src/b")).unwrap();
                fs::write(
                    folder.join("src/b/a.rs"),
                    format!("// {name} {version}\r\n"),
                )
                .unwrap();
                fs::write(folder.join("src/b.rs"), format!("// {name}, both\n")).unwrap();
                fs::write(folder.join("LICENSE.md"), "The same everywhere.\n").unwrap();
                fs::write(folder.join("data.json"), "{}").unwrap();
                packages.push(Package {
                    id: format!("{name}@{version}"),
                    version: version.to_owned(),
                    name,
                    folder,
                });
            }
        }
        let (items, summary) = corpus(&packages, Some(0.1), &|_| {}).unwrap();
        // One license, and for each crate `b.rs` once and `a.rs` of both versions.
        assert_eq!((summary.crates, items.len()), (40, 1 + 40 * 3));
        assert_eq!(summary.left_out[&LeftOut::Duplicate].0, 79 + 40);
        assert_eq!(summary.held_out.len(), 4);
        let place = |item: &Item| {
            let relative = item.path.strip_prefix(root.path()).unwrap();
            relative.display().to_string().replace('\\', "/")
        };
        let first: Vec<String> = items.iter().take(4).map(place).collect();
        let expected =
            ["LICENSE.md", "src/b.rs", "src/b/a.rs"].map(|f| format!("crate-0-1.0.0/{f}"));
        assert_eq!(first[..3], expected);
        assert_eq!(first[3], "crate-0-2.0.0/src/b/a.rs");
        for item in &items {
            let place = place(item);
            let name = place.split("-1.0.0").next().unwrap();
            let name = name.split("-2.0.0").next().unwrap().to_owned();
            let held_out = summary.held_out.contains(&name);
            assert_eq!(item.split == Some(Split::Validation), held_out, "{place}");
        }
        let (_, all) = corpus(&packages, None, &|_| {}).unwrap();
        assert!(all.held_out.is_empty());
    }
}
