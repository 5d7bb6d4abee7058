//! Copies on several devices, looked into after steps: they must never differ by a bit.

use burn::tensor::Tensor;

use super::non_finite::{config, copy_bits, trainer};
use super::*;
use crate::AllReduce;

/// The sum, a tensor for each that shares its memory with the others'.
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
fn they_stay_equal_to_the_last_bit() {
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
    // And where one takes over the others' part, as it does when a run is resumed.
    let alone = Devices::one(Device::default());
    let state = trainer.state();
    let optimizer = state.optimizer().on(devices.first());
    let stepper = Stepper::new(&crate::NextToken, &config.train, &alone);
    let moved = stepper.start(&state.valid(), optimizer);
    let bits = |state: &TrainState| state.all().map(copy_bits).next().unwrap();
    assert!(bits(&moved) == bits(state));
}
