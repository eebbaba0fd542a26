//! COCO evaluation against the Python packages for it.

use crate::duel::{Check, Comparison, Contender, Program, Unit};
use crate::inputs::Inputs;

/// The packages, and about how long a round of theirs takes.
const PACKAGES: [(&str, f64); 2] = [("pycocotools", 40.0), ("faster-coco-eval", 10.0)];

/// Of boxes and of masks.
pub fn duels() -> Vec<Comparison> {
    let pairs = ["bbox", "segm"].into_iter().flat_map(|kind| PACKAGES.map(|by| (kind, by)));
    pairs.map(|(kind, (package, expected))| duel(kind, package, expected)).collect()
}

fn duel(kind: &str, package: &str, expected: f64) -> Comparison {
    let theirs = format!("--by {package} --kind {kind}");
    Comparison {
        name: format!("coco-{kind}-{package}"),
        work: format!("COCO {kind} evaluation, 5,000 images"),
        opponent: package.to_owned(),
        unit: Unit::Evaluation,
        expected,
        products: None,
        inputs: Inputs::Coco,
        // The figures are sums of 10⁶ numbers up to 1.
        checks: vec![Check { name: "figures", tolerance: 1e-6 }],
        ours: Contender::new("", Program::Own, &format!("coco --kind {kind}")),
        theirs: vec![Contender::new("", Program::Script("coco.py"), &theirs)],
    }
}
