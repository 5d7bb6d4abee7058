//! The reference's numbers, and random matrices.
#![allow(dead_code)] // Each test uses a part.

use half::f16;
use iiet_compress::{Hessian, PackedView};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::SafeTensors;

pub struct Reference {
    file: SafeTensors<'static>,
    pub d_out: usize,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub hessian: Hessian,
}

pub fn reference() -> Reference {
    let file = SafeTensors::deserialize(include_bytes!("reference.safetensors")).unwrap();
    let x = file.tensor("x").unwrap().data().to_vec();
    let x: Vec<f32> = x
        .as_chunks()
        .0
        .iter()
        .map(|&b| f16::from_le_bytes(b).to_f32())
        .collect();
    let w = file.tensor("w").unwrap();
    let mut hessian = Hessian::new(w.shape()[1]).unwrap();
    hessian.add(&x).unwrap();
    Reference {
        d_out: w.shape()[0],
        w: f32s(w.data()),
        x,
        hessian,
        file,
    }
}

impl Reference {
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.file.tensor(name).unwrap().data().to_vec()
    }

    pub fn f32s(&self, name: &str) -> Vec<f32> {
        f32s(&self.bytes(name))
    }
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect()
}

/// Uniform in (-1, 1).
pub fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|_| (random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

/// Rows whose entries are correlated: mixtures of a quarter as many sources, and some noise.
pub fn correlated(seed: u64, rows: usize, width: usize) -> Vec<f32> {
    let sources = width / 4;
    let mixture = random(seed + 1000, sources * width);
    let (source, noise) = (
        random(seed, rows * sources),
        random(seed + 2000, rows * width),
    );
    let entry = |(i, noise): (usize, &f32)| {
        let (row, column) = (i / width, i % width);
        let mixed: f32 = (0..sources)
            .map(|s| source[row * sources + s] * mixture[s * width + column])
            .sum();
        mixed + 0.2 * noise
    };
    noise.iter().enumerate().map(entry).collect()
}

/// The values of a matrix, one by one.
pub fn values(view: &PackedView) -> Vec<f32> {
    let codes = view.unpack();
    let value = |(i, &code): (usize, &u8)| {
        let (row, column) = (i / view.d_in(), i % view.d_in());
        view.grid(row, column / view.scheme().group()).value(code)
    };
    codes.iter().enumerate().map(value).collect()
}
