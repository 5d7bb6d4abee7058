//! The whole suite on flex; `cargo xtask conformance --backend NAME` runs it on the others.

use burn::tensor::Device;
use iiet_conformance::CHECKS;

#[test]
fn flex_conforms() {
    let device = Device::flex();
    for check in CHECKS {
        let findings = check.run(&device).unwrap();
        assert!(!findings.is_empty(), "{}: no findings", check.name);
        for finding in findings {
            println!("{}: {finding}", check.name);
            assert!(finding.holds(), "{}: {finding}", check.name);
        }
    }
}
