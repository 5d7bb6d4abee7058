//! Runs every check on Burn's default device: `cargo run --release --example check_device`

use std::process::ExitCode;

use burn::tensor::Device;
use iiet_conformance::CHECKS;

fn main() -> ExitCode {
    let device = Device::default();
    let mut conforms = true;
    for check in CHECKS {
        match check.run(&device) {
            Ok(findings) => {
                for finding in findings {
                    conforms &= finding.holds();
                    println!("{}: {finding}", check.name);
                }
            }
            Err(error) => {
                conforms = false;
                println!("{}: {error}", check.name);
            }
        }
    }
    match conforms {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
