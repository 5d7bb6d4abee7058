//! `iiet conformance`

use anyhow::ensure;
use burn::tensor::Device;
use iiet_conformance::{CHECKS, Finding};

use crate::backend::{DeviceArgument, for_all_products};
use crate::print::{is_closed, outln};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    device: DeviceArgument,
}

/// Runs every check, on flex with each products of the processor, and fails if one does not hold.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let chosen = arguments.device.open()?;
    let mut broken = Vec::new();
    for_all_products(&chosen, |products| {
        if let Some(products) = products {
            outln!("{products} products")?;
        }
        let names = checked(&chosen.device)?.into_iter();
        broken.extend(names.map(|name| match products {
            Some(products) => format!("{name} ({products})"),
            None => name.to_owned(),
        }));
        Ok(())
    })?;
    ensure!(
        broken.is_empty(),
        "{} does not conform: {}",
        chosen.name,
        broken.join(", ")
    );
    outln!("{} conforms", chosen.name)
}

/// Runs every check, prints the worst of each kind, and returns the names of those that do not hold.
fn checked(device: &Device) -> anyhow::Result<Vec<&'static str>> {
    let line = |cells: [&str; 6]| {
        let [check, of, deviation, allowed, verdict, worst] = cells;
        outln!("{check:<20} {of:<37} {deviation:>9} {allowed:>7}  {verdict:<5}  {worst}")
    };
    line(["check", "of", "deviation", "allowed", "", "worst on"])?;
    let mut broken = Vec::new();
    // Printed as they complete, because a software renderer takes long.
    for check in CHECKS {
        if is_closed() {
            // The reader of standard output is gone, and there is nothing else to write.
            return Ok(Vec::new());
        }
        let findings = match check.run(device) {
            Ok(findings) => findings,
            Err(error) => {
                broken.push(check.name);
                line([check.name, &error.to_string(), "", "", "FAILS", ""])?;
                continue;
            }
        };
        if findings.iter().any(|finding| !finding.holds()) {
            broken.push(check.name);
        }
        for worst in worst_of_each_kind(findings) {
            line([
                check.name,
                worst.what,
                &format!("{:.1e}", worst.deviation),
                &format!("{:.0e}", worst.tolerance),
                if worst.holds() { "holds" } else { "FAILS" },
                &worst.case,
            ])?;
        }
    }
    Ok(broken)
}

/// For each comparison the case with the largest deviation, in the order of first appearance.
fn worst_of_each_kind(findings: Vec<Finding>) -> Vec<Finding> {
    let mut worst: Vec<Finding> = Vec::new();
    for finding in findings {
        match worst.iter_mut().find(|other| other.what == finding.what) {
            // NaN is worse than any number.
            Some(other) if finding.deviation.is_nan() || finding.deviation > other.deviation => {
                *other = finding;
            }
            Some(_) => {}
            None => worst.push(finding),
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_is_shown_with_nan_as_the_worst() {
        let finding = |case: &str, what, deviation| Finding {
            case: case.into(),
            what,
            deviation,
            tolerance: 1.0,
        };
        let worst = worst_of_each_kind(vec![
            finding("a", "loss", 0.25),
            finding("a", "logits", 0.5),
            finding("b", "loss", 0.75),
            finding("b", "logits", f64::NAN),
            finding("c", "loss", 0.5),
            finding("c", "logits", 2.0),
        ]);
        let shown: Vec<_> = worst.iter().map(|f| (f.what, f.case.as_str())).collect();
        assert_eq!(shown, [("loss", "b"), ("logits", "b")]);
        assert!(worst[0].holds() && !worst[1].holds());
    }
}
