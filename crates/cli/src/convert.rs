//! `iiet convert`

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use iiet_files::{Manifest, NewDirectory, write_file};
use iiet_gguf::{TensorType, export_llama, import_llama};
use iiet_model::{
    EncoderDecoder, Inference, ModelKind, Precision, SaveOptions, SequenceInference, Side, load,
    load_as, model_kind, quantisation, save, widen,
};
use iiet_ode::{Options, SolverConfig};
use iiet_text::with_tokenizer_class;
use iiet_train::override_solver;
use toml::{Table, Value};

use crate::along::{TOKENIZER_CONFIG, copy_along, create, finish};
use crate::backend::{self, Chosen};
use crate::model_directory::is_gguf;
use crate::print::outln;
use crate::sides::{SideName, refuse_side};

/// What helps where memory does not suffice.
const REMEDY: &str = "convert on a machine with more";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model to convert: its directory, that of its run, a name on the Hugging Face hub, or a GGUF file
    /// of llama.cpp's.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The solver of the new model, such as iterative_implicit_euler; with --to, of a GGUF file, and of matrices of
    /// 8 or 4 bits, which are written as floats, by default the solver that the model has.
    #[arg(long, value_name = "NAME")]
    solver: Option<String>,
    /// The side of a sequence-to-sequence model whose solver is changed [default: both].
    #[arg(long, value_name = "SIDE", value_enum)]
    side: Option<SideName>,
    /// What is to read the new model beside iiet. For transformers, the tokenizer's class is named
    /// where it is not; the Python files of models other than LLaMA are always written. For gguf, --out is a
    /// file for llama.cpp.
    #[arg(long, value_name = "READER")]
    to: Option<Reader>,
    /// An option of the solver, such as iterations=3 or 'iterations=[3, 1, 0]'; repeatable. Those
    /// that are not given stay as they are, or are the defaults of another solver.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How weights are stored: f32, bf16 or f16; in GGUF also q8_0 or q4_0, blocks of 32 weights that share a
    /// scale [default: f32; in GGUF, of matrices of 8 or 4 bits, the blocks that have the same values]
    #[arg(long, value_name = "TYPE", value_parser = stored())]
    dtype: Option<Stored>,
    /// The directory to write, or the GGUF file; it must not exist yet, or be an empty directory.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

/// Other programs that directories can be written for.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reader {
    /// Hugging Face transformers, 4.57 and 5.x.
    Transformers,
    /// llama.cpp, which has LLaMA models under explicit Euler alone.
    Gguf,
}

/// How weights are stored.
#[derive(Clone, Copy)]
enum Stored {
    Floats(Precision),
    /// A type of ggml's, in GGUF files only.
    Blocks(TensorType),
}

/// Parses a type; the help lists all of them.
fn stored() -> impl TypedValueParser<Value = Stored> {
    let precisions = Precision::ALL.map(Precision::name);
    let names = precisions.into_iter().chain(BLOCKS.map(|(name, _)| name));
    PossibleValuesParser::new(names).try_map(|name| {
        let blocks = BLOCKS.into_iter().find(|(block, _)| *block == name);
        match blocks {
            Some((_, kind)) => Ok(Stored::Blocks(kind)),
            None => name.parse().map(Stored::Floats),
        }
    })
}

const BLOCKS: [(&str, TensorType); 2] = [("q8_0", TensorType::Q8_0), ("q4_0", TensorType::Q4_0)];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let out = &arguments.out;
    let place = || out.display().to_string();
    if is_gguf(&arguments.model) {
        return from_gguf(arguments);
    }
    if arguments.to == Some(Reader::Gguf) {
        return to_gguf(arguments);
    }
    let packed = quantisation(&arguments.model)?.is_some();
    if arguments.solver.is_none() && arguments.to.is_none() && !packed {
        let missing =
            "--solver is missing: the solver of the new model, or --to, what is to read it\n";
        clap::Error::raw(ErrorKind::MissingRequiredArgument, missing).exit();
    }
    let chosen = backend::for_files()?;
    let (directory, mut manifest) = match model_kind(&arguments.model)? {
        ModelKind::EncoderDecoder => sequences(arguments, &chosen)?,
        _ => texts(arguments, &chosen)?,
    };
    copy_along(&arguments.model, &directory, &mut manifest)?;
    if arguments.to == Some(Reader::Transformers)
        && let Some(text) = with_tokenizer_class(&arguments.model)?
    {
        let to = directory.partial().join(TOKENIZER_CONFIG);
        let written = write_file(&to, |file| file.write_all(text.as_bytes()));
        manifest.add(TOKENIZER_CONFIG, written.with_context(place)?);
    }
    finish(directory, &manifest, out)
}

/// A GGUF file of the model.
fn to_gguf(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { model, out, .. } = arguments;
    ensure!(
        arguments.solver.is_none() && arguments.set.is_empty() && arguments.side.is_none(),
        "--to gguf: a GGUF file is of the model as it is; give --solver, --set or --side in a conversion before"
    );
    ensure!(
        !out.exists(),
        "{}: exists; allowed: a file that does not",
        out.display()
    );
    let kind = arguments.dtype.map(|dtype| match dtype {
        Stored::Blocks(kind) => kind,
        Stored::Floats(Precision::F32) => TensorType::F32,
        Stored::Floats(Precision::Bf16) => TensorType::Bf16,
        Stored::Floats(Precision::F16) => TensorType::F16,
    });
    export_llama(model, out, kind)?;
    outln!("{}", out.display())
}

/// A model directory of the model in a GGUF file.
fn from_gguf(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        arguments.solver.is_none()
            && arguments.set.is_empty()
            && arguments.side.is_none()
            && arguments.to.is_none(),
        "{}: a GGUF file is converted as it is; give --solver, --set, --side or --to in a conversion of the directory",
        arguments.model.display()
    );
    ensure!(
        arguments.dtype.is_none(),
        "--dtype: the weights of a GGUF file keep their types; convert the directory to others"
    );
    import_llama(&arguments.model, &arguments.out)?;
    outln!("{}", arguments.out.display())
}

/// A directory with the converted language model.
fn texts(arguments: &Arguments, chosen: &Chosen) -> anyhow::Result<(NewDirectory, Manifest)> {
    refuse_side(arguments.side, &arguments.model)?;
    let before = iiet_model::load_config(&arguments.model)?;
    let mut config = before.clone();
    config.solver = solver(arguments, &before.solver)?;
    config.validate()?;
    let options = options(arguments)?;
    let directory = create(&arguments.out)?;
    if chosen.on_host {
        let inference = Inference {
            precision: Precision::F32,
            tokens: 0,
            logits: 0,
            cached: 0,
            cache: Precision::F32,
        };
        let estimate = inference.memory("converting", &config, &chosen.device)?;
        estimate.check(REMEDY)?;
    }
    let model = match quantisation(&arguments.model)? {
        None => load_as(&config, &arguments.model, &chosen.device)?,
        Some(_) => {
            let (mut model, _) = load(&arguments.model, &chosen.device)?;
            widen(&mut model);
            model.with_config(&config, 0, &chosen.device)?
        }
    };
    let manifest = save(&model, directory.partial(), &options)?;
    Ok((directory, manifest))
}

/// A directory with the converted sequence-to-sequence model.
fn sequences(arguments: &Arguments, chosen: &Chosen) -> anyhow::Result<(NewDirectory, Manifest)> {
    ensure!(
        arguments.to.is_none(),
        "--to: {} is a sequence-to-sequence model, for which there are no files for transformers",
        arguments.model.display()
    );
    let mut config = EncoderDecoder::load_config(&arguments.model)?;
    let sides = match arguments.side {
        Some(side) => vec![Side::from(side)],
        None => Side::ALL.to_vec(),
    };
    for side in sides {
        let stack = config.stack_mut(side);
        stack.solver = solver(arguments, &stack.solver).with_context(|| side.name())?;
    }
    config.validate()?;
    let options = options(arguments)?;
    let directory = create(&arguments.out)?;
    if chosen.on_host {
        let inference = SequenceInference {
            precision: Precision::F32,
            source: 0,
            target: 0,
        };
        let estimate = inference.memory("converting", &config, &chosen.device)?;
        estimate.check(REMEDY)?;
    }
    let mut model = EncoderDecoder::load(&arguments.model, &chosen.device)?;
    widen(&mut model);
    // Parameters that only the new solver has start at their defaults, which no seed changes.
    let model = model.with_config(&config, 0, &chosen.device)?;
    let manifest = save(&model, directory.partial(), &options)?;
    Ok((directory, manifest))
}

fn options(arguments: &Arguments) -> anyhow::Result<SaveOptions> {
    match arguments.dtype.unwrap_or(Stored::Floats(Precision::F32)) {
        Stored::Floats(stored) => Ok(SaveOptions {
            stored,
            ..SaveOptions::default()
        }),
        Stored::Blocks(kind) => bail!(
            "--dtype {kind}: only with --to gguf; allowed: {}",
            Precision::names(|_| true)
        ),
    }
}

/// The solver asked for.
fn solver(arguments: &Arguments, before: &SolverConfig) -> anyhow::Result<SolverConfig> {
    let mut table = Table::new();
    for assignment in &arguments.set {
        let place = || format!("--set {assignment}");
        table.extend(toml::from_str::<Table>(assignment).with_context(place)?);
    }
    let name = arguments.solver.as_deref().unwrap_or(before.name());
    table.insert("name".into(), name.into());
    override_solver(before, &Value::Table(table)).map_err(|reason| anyhow!("--solver: {reason}"))
}
