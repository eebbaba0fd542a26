//! Loading of photographs against torchvision's.

use crate::duel::{Check, Comparison, Contender, Program, Unit};
use crate::inputs::Inputs;

/// Name, photographs, their size, images of a batch, batches of a round.
type Set = (&'static str, usize, (usize, usize), usize, usize);
const SETS: [Set; 2] = [("small", 64, (500, 375), 64, 20), ("large", 12, (4000, 3000), 16, 6)];
/// What only one of us does.
const REDUCED: &str = " (decoded at reduced scale by us alone)";
/// Side of the crops in pixels.
const CROP: usize = 224;

/// How the other side decodes: part of the comparison's name, what the table
/// calls it, and the ways of doing so, of which the fastest is compared with.
type Decoder = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const DECODERS: [Decoder; 2] = [
    ("pillow", "torchvision on Pillow, DataLoader", &[("v1", "v1"), ("v2", "v2")]),
    ("tensors", "torchvision's decode_jpeg and v2, DataLoader", &[("", "tensors")]),
];

/// Small photographs and large ones, against each decoder.
pub fn duels() -> Vec<Comparison> {
    let pairs = SETS.into_iter().flat_map(|set| DECODERS.map(|decoder| (set, decoder)));
    pairs.map(|(set, decoder)| duel(set, decoder)).collect()
}

fn duel(
    (name, count, size, batch, batches): Set,
    (decoder, opponent, ways): Decoder,
) -> Comparison {
    let arguments = format!("--batch {batch} --batches {batches} --size {CROP}");
    let theirs = |label, way: &str| {
        Contender::new(label, Program::Script("loading.py"), &format!("{arguments} --way {way}"))
    };
    Comparison {
        name: format!("loading-{name}-{decoder}"),
        work: format!(
            "loading {} × {} px JPEG, crops of {CROP} px{}",
            size.0,
            size.1,
            if name == "large" { REDUCED } else { "" }
        ),
        opponent: opponent.to_owned(),
        unit: Unit::Images,
        expected: 15.0,
        inputs: Inputs::Photographs { count, size },
        // Other crops on either side: a means to notice another scale or
        // normalisation.
        checks: vec![Check { name: "statistics", tolerance: 0.05 }],
        ours: Contender::new("", Program::Own, &format!("loading {arguments}")),
        theirs: ways.iter().map(|(label, way)| theirs(label, way)).collect(),
    }
}
