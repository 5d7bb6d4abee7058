//! Models with PyTorch's results: token ids, logits, the loss and all its gradients.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use iiet_model::{LanguageModel, load, parse_safetensors, token_ids};
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::ConformanceError;

/// A model directory with PyTorch's results.
#[derive(Debug, Clone)]
pub struct Case {
    /// The directory's name.
    pub name: String,
    config: Cow<'static, [u8]>,
    weights: Cow<'static, [u8]>,
    results: Cow<'static, [u8]>,
}

/// PyTorch's results.
pub(crate) struct Expected {
    pub(crate) ids: Vec<Vec<u32>>,
    pub(crate) logits: Vec<f32>,
    pub(crate) loss: f32,
    /// By the parameters' names in checkpoints, with the layout of checkpoints.
    pub(crate) gradients: BTreeMap<String, Vec<f32>>,
}

/// PyTorch's results of an encoder-decoder.
pub(crate) struct Pairs {
    pub(crate) source: Vec<Vec<u32>>,
    /// Tokens of each source that are no padding.
    pub(crate) lengths: Vec<usize>,
    pub(crate) target: Vec<Vec<u32>>,
    /// Tokens of each target that are no padding.
    pub(crate) target_lengths: Vec<usize>,
    pub(crate) logits: Vec<f32>,
    pub(crate) loss: f32,
    pub(crate) gradients: BTreeMap<String, Vec<f32>>,
}

macro_rules! kept {
    ($($folder:literal / $name:literal),+ $(,)?) => {
        [$(Case {
            name: String::from($name),
            config: kept!(@ $folder, $name, "config.json"),
            weights: kept!(@ $folder, $name, "model.safetensors"),
            results: kept!(@ $folder, $name, "case.safetensors"),
        }),+]
    };
    (@ $folder:literal, $name:literal, $file:literal) => {
        Cow::Borrowed(include_bytes!(concat!("../golden/", $folder, "/", $name, "/", $file)))
    };
}

impl Case {
    /// The embedded language models: each solver but Adams-Bashforth at least once.
    pub fn all() -> [Self; 6] {
        kept![
            "models" / "euler-gqa-untied",
            "models" / "rk4",
            "models" / "pcformer-rk4",
            "models" / "implicit-euler-2-0-1-gqa",
            "models" / "iiet-r3-gqa-untied",
            "models" / "e-iiet-3-1-0",
        ]
    }

    /// The embedded encoder-decoders, named by the solvers of encoder and decoder.
    pub fn encoder_decoders() -> [Self; 5] {
        kept![
            "encoder-decoders" / "euler-euler",
            "encoder-decoders" / "iiet-iiet",
            "encoder-decoders" / "rk2-iiet-schedule",
            "encoder-decoders" / "implicit-pcformer2",
            "encoder-decoders" / "pcformer4-euler-gqa",
        ]
    }

    /// Reads a case from a folder with `config.json`, `model.safetensors` and `case.safetensors`.
    ///
    /// # Errors
    ///
    /// [`ConformanceError::Io`]
    pub fn read(dir: &Path) -> Result<Self, ConformanceError> {
        let file = |name: &str| match fs::read(dir.join(name)) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(source) => Err(ConformanceError::Io {
                path: dir.join(name),
                source,
            }),
        };
        let name = dir.file_name().unwrap_or(dir.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            config: file("config.json")?,
            weights: file("model.safetensors")?,
            results: file("case.safetensors")?,
        })
    }

    /// The model, loaded from a directory as any model is.
    pub(crate) fn model(&self, device: &Device) -> Result<LanguageModel, ConformanceError> {
        Ok(load(self.directory()?.path(), device)?.0)
    }

    /// The model's directory, which exists as long as this value.
    pub(crate) fn directory(&self) -> Result<TempDir, ConformanceError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            |source| ConformanceError::Io { path, source }
        };
        let folder = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
        for (name, bytes) in [
            ("config.json", &self.config),
            ("model.safetensors", &self.weights),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).map_err(io(&path))?;
        }
        Ok(folder)
    }

    /// The weights in the file, by name.
    pub(crate) fn stored(&self) -> Result<BTreeMap<String, Vec<u8>>, ConformanceError> {
        let file = self.parse(&self.weights)?;
        let tensors = file.iter();
        Ok(tensors
            .map(|(name, view)| (name.to_owned(), view.data().to_vec()))
            .collect())
    }

    pub(crate) fn expected(&self) -> Result<Expected, ConformanceError> {
        let file = self.parse(&self.results)?;
        Ok(Expected {
            ids: self.integers(&file, "input_ids")?,
            logits: self.array(&file, "logits")?,
            loss: self.loss(&file)?,
            gradients: gradients(&file),
        })
    }

    pub(crate) fn expected_pairs(&self) -> Result<Pairs, ConformanceError> {
        let file = self.parse(&self.results)?;
        let lengths = |name: &str| {
            let mask = self.integers(&file, name)?;
            let length = |row: &Vec<u32>| row.iter().filter(|one| **one == 1).count();
            let padded = |row: &Vec<u32>| row[..length(row)].iter().all(|one| *one == 1);
            match mask.iter().all(|row| length(row) > 0 && padded(row)) {
                true => Ok(mask.iter().map(length).collect()),
                false => Err(self.refuse(format!("{name}: padding is not at the end alone"))),
            }
        };
        Ok(Pairs {
            source: self.integers(&file, "source_ids")?,
            lengths: lengths("source_mask")?,
            target: self.integers(&file, "target_ids")?,
            target_lengths: lengths("target_mask")?,
            logits: self.array(&file, "logits")?,
            loss: self.loss(&file)?,
            gradients: gradients(&file),
        })
    }

    /// A matrix of small integers, stored in 64 bits.
    fn integers(
        &self,
        file: &SafeTensors<'_>,
        name: &str,
    ) -> Result<Vec<Vec<u32>>, ConformanceError> {
        let view = file.tensor(name);
        let view = view.map_err(|error| self.refuse(format!("{name}: {error}")))?;
        let &[_, columns] = view.shape() else {
            return Err(self.refuse(format!("{name} have the shape {:?}", view.shape())));
        };
        let entries: Vec<u32> = view
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u32::try_from(i64::from_le_bytes(*bytes)))
            .collect::<Result<_, _>>()
            .map_err(|error| self.refuse(format!("{name}: {error}")))?;
        let rows = entries.chunks(columns.max(1));
        Ok(rows.map(<[u32]>::to_vec).collect())
    }

    fn array(&self, file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, ConformanceError> {
        let view = file.tensor(name);
        let view = view.map_err(|error| self.refuse(format!("{name}: {error}")))?;
        Ok(floats(view.data()))
    }

    fn loss(&self, file: &SafeTensors<'_>) -> Result<f32, ConformanceError> {
        let loss = self.array(file, "loss")?;
        let first = loss.first();
        first
            .copied()
            .ok_or_else(|| self.refuse("loss is empty".to_owned()))
    }

    fn parse<'a>(&self, bytes: &'a [u8]) -> Result<SafeTensors<'a>, ConformanceError> {
        Ok(parse_safetensors(Path::new(&self.name), bytes)?)
    }

    pub(crate) fn refuse(&self, reason: String) -> ConformanceError {
        ConformanceError::Case {
            case: self.name.clone(),
            reason,
        }
    }
}

fn gradients(file: &SafeTensors<'_>) -> BTreeMap<String, Vec<f32>> {
    let gradients = file.iter().filter_map(|(name, view)| {
        let name = name.strip_prefix("grad.")?;
        Some((name.to_owned(), floats(view.data())))
    });
    gradients.collect()
}

/// Ids `[batch, seq]` as a tensor on a device.
///
/// # Panics
///
/// If the rows differ in length.
pub(crate) fn on_device(rows: &[Vec<u32>], device: &Device) -> Tensor<2, Int> {
    let seq = rows.first().map_or(0, Vec::len);
    token_ids(&rows.concat(), [rows.len(), seq], device)
}

pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}
