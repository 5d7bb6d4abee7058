//! The whole suite on flex, with all matrix products that the processor has; `cargo xtask conformance --backend NAME` runs it on the others.

use burn::tensor::Device;
use iiet_conformance::CHECKS;
use iiet_kernels::Products;

#[test]
fn flex_conforms() {
    let device = Device::flex();
    for products in Products::available() {
        products.select();
        for check in CHECKS {
            let findings = check.run(&device).unwrap();
            assert!(!findings.is_empty(), "{}: no findings", check.name);
            for finding in findings {
                println!("{products}: {}: {finding}", check.name);
                assert!(finding.holds(), "{products}: {}: {finding}", check.name);
            }
        }
    }
}
