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

/// Photographs in shards, of a round, of a batch.
const SHARDED: usize = 1280;
const SHARDED_BATCH: usize = 64;
/// Milliseconds of an answer of a store.
const DELAY: u64 = 50;
/// Name, where the shards are, how long the store takes, and our flags.
const PLACES: [(&str, &str, Option<u64>, &str); 3] = [
    ("loading-shards", "on a disk", None, ""),
    ("loading-s3", "in S3 with 50 ms latency", Some(DELAY), ""),
    ("loading-s3-cache", "in S3 with 50 ms latency, cached by us alone", Some(DELAY), "--cache"),
];

/// Small photographs and large ones, against each decoder; and shards.
pub fn duels() -> Vec<Comparison> {
    let pairs = SETS.into_iter().flat_map(|set| DECODERS.map(|decoder| (set, decoder)));
    let photographs = pairs.map(|(set, decoder)| duel(set, decoder));
    photographs.chain(PLACES.map(shards)).collect()
}

fn shards((name, place, delay, flags): (&str, &str, Option<u64>, &str)) -> Comparison {
    let batches = SHARDED / SHARDED_BATCH;
    let arguments = format!("--batch {SHARDED_BATCH} --batches {batches} --size {CROP}");
    let theirs = |way: &'static str| {
        let script = Program::Script("loading_shards.py");
        Contender::new(way, script, &format!("{arguments} --way {way}"))
    };
    Comparison {
        name: name.to_owned(),
        work: format!("loading shards {place}, 500 × 375 px JPEG, crops of {CROP} px"),
        opponent: "WebDataset with torchvision on Pillow".to_owned(),
        unit: Unit::Images,
        expected: 15.0,
        products: None,
        inputs: Inputs::Shards { files: SHARDED, delay },
        // As of photographs.
        checks: vec![Check { name: "statistics", tolerance: 0.05 }],
        ours: Contender::new("", Program::Own, &format!("loading {arguments} {flags}")),
        theirs: vec![theirs("v1"), theirs("v2")],
    }
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
        products: None,
        inputs: Inputs::Photographs { count, size },
        // Other crops on either side: a means to notice another scale or
        // normalisation.
        checks: vec![Check { name: "statistics", tolerance: 0.05 }],
        ours: Contender::new("", Program::Own, &format!("loading {arguments}")),
        theirs: ways.iter().map(|(label, way)| theirs(label, way)).collect(),
    }
}
