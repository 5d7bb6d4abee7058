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

macro_rules! kept {
    ($($name:literal),+ $(,)?) => {
        [$(Case {
            name: String::from($name),
            config: kept!(@ $name, "config.json"),
            weights: kept!(@ $name, "model.safetensors"),
            results: kept!(@ $name, "case.safetensors"),
        }),+]
    };
    (@ $name:literal, $file:literal) => {
        Cow::Borrowed(include_bytes!(concat!("../golden/models/", $name, "/", $file)))
    };
}

impl Case {
    /// The embedded cases: each solver but Adams-Bashforth at least once.
    pub fn all() -> [Self; 6] {
        kept![
            "euler-gqa-untied",
            "rk4",
            "pcformer-rk4",
            "implicit-euler-2-0-1-gqa",
            "iiet-r3-gqa-untied",
            "e-iiet-3-1-0",
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
        let array = |name: &str| {
            let view = file.tensor(name);
            view.map_err(|error| self.refuse(format!("{name}: {error}")))
        };
        let ids = array("input_ids")?;
        let &[_, seq] = ids.shape() else {
            return Err(self.refuse(format!("input_ids have the shape {:?}", ids.shape())));
        };
        let tokens: Vec<u32> = ids
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u32::try_from(i64::from_le_bytes(*bytes)))
            .collect::<Result<_, _>>()
            .map_err(|error| self.refuse(format!("input_ids: {error}")))?;
        let loss = floats(array("loss")?.data());
        let gradients = file.iter().filter_map(|(name, view)| {
            let name = name.strip_prefix("grad.")?;
            Some((name.to_owned(), floats(view.data())))
        });
        Ok(Expected {
            ids: tokens.chunks(seq.max(1)).map(<[u32]>::to_vec).collect(),
            logits: floats(array("logits")?.data()),
            loss: *loss
                .first()
                .ok_or_else(|| self.refuse("loss is empty".to_owned()))?,
            gradients: gradients.collect(),
        })
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
