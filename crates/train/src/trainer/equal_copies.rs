//! The copies on several devices are bitwise identical after steps.

use burn::tensor::Tensor;

use super::non_finite::{config, copy_bits, trainer};
use super::*;
use crate::AllReduce;

/// The sum, as tensors that share memory.
#[derive(Debug)]
struct Shared;

impl AllReduce for Shared {
    fn sum(&self, of_each: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        let count = of_each.len();
        let sum = of_each.into_iter().reduce(|a, b| a + b);
        vec![sum.unwrap(); count]
    }
}

#[test]
fn copies_stay_bitwise_identical() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1000);
    let others = vec![Device::default()];
    let devices = Devices::several(Device::default(), others, Shared);
    let mut trainer = trainer(&config, &devices);
    let before = trainer.state().all().map(copy_bits).next().unwrap();
    for step in 0..3 {
        trainer.take_step().unwrap();
        let bits: Vec<_> = trainer.state().all().map(copy_bits).collect();
        assert_eq!(bits.len(), 2);
        assert!(bits[0] == bits[1], "after {step} more steps");
        assert!(bits[0] != before);
    }
    // Also when one copy replaces the others, as in resuming.
    let alone = Devices::one(Device::default());
    let state = trainer.state();
    let optimizer = state.optimizer().on(devices.first());
    let stepper = Stepper::new(&crate::NextToken, &config.train, &alone);
    let moved = stepper.start(&state.valid(), optimizer);
    let bits = |state: &TrainState| state.all().map(copy_bits).next().unwrap();
    assert!(bits(&moved) == bits(state));
}
