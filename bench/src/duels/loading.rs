//! Loading of photographs against torchvision's.

use crate::duel::{Check, Duel, Program, Side, Unit};
use crate::inputs::Inputs;

/// Name, photographs, their size, images of a batch, batches of a round.
type Set = (&'static str, usize, (usize, usize), usize, usize);
const SETS: [Set; 2] = [("small", 64, (500, 375), 64, 20), ("large", 12, (4000, 3000), 16, 6)];
/// Side of the crops in pixels.
const CROP: usize = 224;

/// Small photographs and large ones.
pub fn duels() -> Vec<Duel> {
    SETS.into_iter().map(duel).collect()
}

fn duel((name, count, size, batch, batches): Set) -> Duel {
    let arguments = format!("--batch {batch} --batches {batches} --size {CROP}");
    let theirs = |label, way: &str| {
        Side::new(label, Program::Script("loading.py"), &format!("{arguments} --way {way}"))
    };
    Duel {
        name: format!("loading-{name}"),
        work: format!("loading {} × {} px JPEG, crops of {CROP} px", size.0, size.1),
        opponent: "torchvision, DataLoader".to_owned(),
        unit: Unit::Images,
        expected: 15.0,
        inputs: Inputs::Photographs { count, size },
        // Other crops on either side: a means to notice another scale or
        // normalisation.
        checks: vec![Check { name: "statistics", tolerance: 0.05 }],
        ours: Side::new("", Program::Own, &format!("loading {arguments}")),
        theirs: vec![
            theirs("v1 on PIL", "v1"),
            theirs("v2 on PIL", "v2"),
            theirs("v2 on tensors", "tensors"),
        ],
    }
}
