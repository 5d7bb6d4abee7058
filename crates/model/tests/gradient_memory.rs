//! Gradients of fixed points take memory that does not grow with the iteration.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_model::{CrossEntropy, LanguageModel, LlamaConfig, ModelConfig};

/// Counts the bytes that are taken, and the most there were.
struct Counting;

static TAKEN: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as isize;
        let taken = TAKEN.fetch_add(size, Ordering::Relaxed) + size;
        MOST.fetch_max(taken, Ordering::Relaxed);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that a loss and its gradients took.
fn peak(rest: &str, iterations: usize) -> isize {
    let solver = format!(r#"{{"name": "implicit_euler", "iterations": {iterations}{rest}}}"#);
    let config = ModelConfig {
        vocab_size: 61,
        d_model: 64,
        n_layers: 2,
        seq_len: 64,
        block: LlamaConfig {
            d_ff: 128,
            ..LlamaConfig::default()
        },
        solver: serde_json::from_str(&solver).unwrap(),
        ..ModelConfig::default()
    };
    let model = LanguageModel::init(&config, 11, &Device::default()).unwrap();
    let model: LanguageModel = model.train();
    let data = TensorData::new::<i64, _>((0..512).map(|i| i % 61).collect::<Vec<_>>(), [8, 64]);
    let ids = Tensor::<2, Int>::from_data(data, &Device::default().autodiff());
    let run = || {
        let mut objective = CrossEntropy {
            targets: ids.clone(),
            weights: Tensor::ones([8, 64], &ids.device()),
        };
        drop(model.objective(ids.clone(), &mut objective).backward());
    };
    // Once for what is taken only once.
    run();
    let before = TAKEN.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    run();
    MOST.load(Ordering::Relaxed) - before
}

/// The only test of this file: another one would allocate meanwhile.
#[test]
fn memory_does_not_grow_with_the_corrections() {
    let growth = |rest: &str| peak(rest, 16) as f64 / peak(rest, 2) as f64;
    let unrolled = growth("");
    assert!(unrolled > 3.0, "{unrolled}");
    for rest in [r#", "gradient": "implicit""#, r#", "backprop": 1"#] {
        let constant = growth(rest);
        assert!(constant < 1.1, "{rest}: {constant}");
    }
}
