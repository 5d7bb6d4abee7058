//! Prefill and token-by-token decoding, for every solver at the size of `configs/55m.toml`.
//!
//! ```text
//! cargo xtask bench decoding
//! ```
//!
//! First a table: the memory bandwidth of this machine, measured in alternation with decoding, and the share
//! of it that decoding reaches. A token needs one pass over the weights per evaluation, so `bandwidth / bytes
//! read per token` is an upper bound as long as a layer's weights do not stay in a cache. Then criterion's
//! statistics; `-- --test` runs everything once.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, Throughput};
use iiet_benches::preset;
use iiet_compress::{Activations, Scheme};
use iiet_model::{Cache, Cost, LanguageModel, ModelConfig, Precision, round_to_bits, treat_inputs};
use iiet_ode::{Options, SolverConfig};
use iiet_train::RunConfig;

const VOCAB: usize = 32_000;
/// Number of tokens before the first decoded one.
const PROMPT: usize = 128;
/// Prompt length for measuring prefill.
const LONG_PROMPT: usize = 512;
/// Tokens decoded per round of the table.
const DECODED: usize = 32;
const ROUNDS: usize = 7;

fn config(solver: &str) -> ModelConfig {
    let run = RunConfig::load(&preset("55m"), &[]).expect("the preset is in the repository");
    let mut config = run.model.config(VOCAB, None);
    config.solver = SolverConfig::named(solver).expect("a known solver");
    config
}

fn model(solver: &str, device: &Device) -> LanguageModel {
    LanguageModel::init(&config(solver), 1, device).expect("the preset is valid")
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7919 % VOCAB) as u32).collect()
}

fn prefilled(
    model: &LanguageModel,
    precision: Precision,
    tokens: &[u32],
    device: &Device,
) -> Cache {
    let mut cache = model.cache(1, precision);
    black_box(model.prefill(&[tokens], &mut cache, device).into_data());
    cache
}

/// The time of `n` tokens after a prompt, with fixed tokens instead of a choice.
fn decode(model: &LanguageModel, precision: Precision, n: usize, device: &Device) -> Duration {
    let mut cache = prefilled(model, precision, &tokens(PROMPT), device);
    let started = Instant::now();
    for i in 0..n {
        let logits = model.decode(&[(i * 31 % VOCAB) as u32], &mut cache, device);
        black_box(logits.into_data());
    }
    started.elapsed()
}

/// Bytes per second that all threads together read from memory, one long stream each.
fn bandwidth(buffer: &[u64], threads: usize) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for part in buffer.chunks(buffer.len().div_ceil(threads)) {
            scope.spawn(move || {
                let mut sums = [0u64; 32];
                for chunk in part.as_chunks::<32>().0 {
                    prefetch(chunk);
                    for (sum, x) in sums.iter_mut().zip(chunk) {
                        *sum = sum.wrapping_add(*x);
                    }
                }
                black_box(sums);
            });
        }
    });
    size_of_val(buffer) as f64 / started.elapsed().as_secs_f64()
}

/// Fetches lines 2 KiB ahead, as decoding does: without it, processors with a high memory latency read a fifth
/// less.
fn prefetch(chunk: &[u64; 32]) {
    #[cfg(target_arch = "x86_64")]
    for line in chunk.chunks(8) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = line.as_ptr().wrapping_byte_add(2048);
        // SAFETY: all processors of this architecture have the instruction, which has no effect but on caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = chunk;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn threads() -> usize {
    let named = std::env::var("RAYON_NUM_THREADS").ok();
    let named = named.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    named.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A model of the table.
struct Variant {
    name: &'static str,
    model: LanguageModel,
    /// Of the keys and values.
    cache: Precision,
    /// Bytes of the weights. A token reads one row of the embedding; if tied, all of it is read as the output
    /// projection.
    bytes: f64,
}

fn variants(device: &Device) -> Vec<Variant> {
    let euler = || model("explicit_euler", device);
    let parameters = Cost::of(&euler()).parameters as f64;
    let float = |name, solver, precision: Precision| Variant {
        name,
        model: model(solver, device).in_precision(precision),
        cache: precision,
        bytes: precision.bytes() as f64 * parameters,
    };
    let packed = |name, bits: u64, activations| {
        let scheme = Scheme::new(bits, 128, true).expect("a known scheme");
        let mut model = euler();
        round_to_bits(&mut model, scheme, true).expect("all widths are multiples of 128");
        treat_inputs(&mut model, activations);
        Variant {
            name,
            model,
            cache: Precision::F32,
            // A scale of 16 bits for each group.
            bytes: parameters * (bits as f64 + 16.0 / 128.0) / 8.0,
        }
    };
    vec![
        float("euler", "explicit_euler", Precision::F32),
        float("IIET, r = 3", "iterative_implicit_euler", Precision::F32),
        float("euler in bf16", "explicit_euler", Precision::Bf16),
        float("euler in f16", "explicit_euler", Precision::F16),
        packed("euler in 8 bits", 8, Activations::F32),
        packed("euler in 4 bits", 4, Activations::F32),
        packed("8 bits by 8 bits", 8, Activations::Int8),
        packed("4 bits by 8 bits", 4, Activations::Int8),
    ]
}

/// Bandwidth and models in alternation; medians.
fn table(device: &Device) {
    let threads = threads();
    // Much larger than the caches of common processors.
    let buffer: Vec<u64> = (0..1u64 << 27).collect();
    let variants = variants(device);
    let prompt = tokens(LONG_PROMPT);
    let mut bandwidths = Vec::new();
    let mut rates: Vec<Vec<[f64; 2]>> = vec![Vec::new(); variants.len()];
    for round in 0..=ROUNDS {
        let bytes = bandwidth(&buffer, threads);
        let of_models = variants.iter().map(|of| {
            let decoding = decode(&of.model, of.cache, DECODED, device).as_secs_f64();
            let started = Instant::now();
            prefilled(&of.model, of.cache, &prompt, device);
            let prefill = started.elapsed().as_secs_f64();
            [DECODED as f64 / decoding, LONG_PROMPT as f64 / prefill]
        });
        let of_models: Vec<_> = of_models.collect();
        // The first round allocates memory.
        if round > 0 {
            bandwidths.push(bytes);
            rates
                .iter_mut()
                .zip(of_models)
                .for_each(|(rates, rate)| rates.push(rate));
        }
    }
    let bandwidth = median(bandwidths);
    println!("threads           {threads}");
    println!("memory bandwidth  {:.2} GB/s", bandwidth / 1e9);
    println!(
        "one text after a prompt of {PROMPT} tokens, and a prompt of {LONG_PROMPT}, in tokens/s"
    );
    println!();
    println!("                 weights, MB   decoding   of the first   of the bandwidth   prompt");
    let of = |rates: &[[f64; 2]], what: usize| median(rates.iter().map(|r| r[what]).collect());
    let first = of(&rates[0], 0);
    for (variant, rates) in variants.iter().zip(&rates) {
        let (decoding, prefill) = (of(rates, 0), of(rates, 1));
        // A token of an iterated model reads its weights once for each evaluation.
        let iterated = variant.model.config().solver.name() == "iterative_implicit_euler";
        let share = match iterated {
            true => String::new(),
            false => format!("{:.0} %", 100.0 * decoding * variant.bytes / bandwidth),
        };
        println!(
            "{:<16} {:>11.1} {decoding:>10.1} {:>14.2} {share:>18} {prefill:>8.0}",
            variant.name,
            variant.bytes / 1e6,
            decoding / first,
        );
    }
}

// As in the binary.
#[global_allocator]
static ALLOCATOR: iiet_train::HugePages = iiet_train::HugePages;

fn main() {
    // The same setting as in the binary.
    iiet_train::keep_freed_memory();
    let device = Device::default();
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    if !std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        table(&device);
    }
    let all: Vec<(String, LanguageModel)> = SolverConfig::NAMES
        .iter()
        .map(|solver| ((*solver).to_owned(), model(solver, &device)))
        .collect();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    for (name, model) in &all {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|n| {
                // Keeps the context short: no more tokens at a time than in the table.
                let times = (0..n.div_ceil(DECODED as u64)).map(|i| {
                    let left = n - i * DECODED as u64;
                    decode(
                        model,
                        Precision::F32,
                        left.min(DECODED as u64) as usize,
                        &device,
                    )
                });
                times.sum()
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("prefill");
    group.throughput(Throughput::Elements(LONG_PROMPT as u64));
    for (name, model) in &all {
        let tokens = tokens(LONG_PROMPT);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| prefilled(model, Precision::F32, &tokens, &device));
        });
    }
    group.finish();
    criterion.final_summary();
}
