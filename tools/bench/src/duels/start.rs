//! From the start of a process to its first training step.

use crate::duel::{Comparison, Contender, Program, Unit};
use crate::inputs::Inputs;

/// Files in the folder.
const FILES: usize = 100_000;

/// Listing the folder, and with the listing kept from an earlier start.
pub fn duels() -> Vec<Comparison> {
    vec![
        duel("start-100k", "100,000 files", ""),
        duel("start-100k-again", "listed before", "--warm"),
    ]
}

fn duel(name: &str, what: &str, more: &str) -> Comparison {
    // Small, so that the start is what takes the time.
    let arguments = "start --model resnet18 --batch 8 --size 96";
    Comparison {
        name: name.to_owned(),
        work: format!("start to first step, {what}"),
        opponent: "PyTorch, torchvision's ImageFolder".to_owned(),
        unit: Unit::Start,
        expected: 15.0,
        products: None,
        inputs: Inputs::Folder { files: FILES },
        // Both see other crops and masks.
        checks: Vec::new(),
        ours: Contender::new("", Program::Own, &format!("{arguments} {more}")),
        theirs: vec![Contender::new("", Program::Around("startup.py"), arguments)],
    }
}
