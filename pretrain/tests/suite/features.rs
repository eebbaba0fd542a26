//! What `pretrain features` draws, and masks by hand for it and for `pretrain reconstruct`.

use backbone::weights::StateDict;
use image::{Luma, Rgb, RgbImage};
use tch::{Kind, Tensor};

use crate::common::{
    Workplace, assert_says, check_reconstruction, read, reconstruct, shorter, tensors, with_images,
};

const IMAGES: [&str; 2] = ["images/class0/000.png", "images/class1/001.png"];

/// A run of a network with patches of 32 pixels, and masks for it.
fn workplace() -> Workplace {
    let work = with_images(8);
    work.train("run", &shorter(&["--model", "resnet18"])).succeeded();
    let write = |name: &str, text: &str| std::fs::write(work.path(name), text).unwrap();
    write("mask.json", r#"{"patches": [2, 2], "visible": [[1, 0], [0, 1]]}"#);
    write("wide.json", r#"{"patches": [2, 3], "visible": [[1, 0, 1], [0, 1, 0]]}"#);
    write("none.json", r#"{"patches": [2, 2], "visible": [[0, 0], [0, 0]]}"#);
    write("keys.json", r#"{"patches": [2, 2], "hidden": [[1, 0], [0, 1]]}"#);
    let npy =
        b"\x93NUMPY\x01\0\x41\0{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}       \n";
    std::fs::write(work.path("array.npy"), [npy.as_slice(), &[0; 16]].concat()).unwrap();
    // Three quarters of the lower left and of the upper right are dark.
    let dark = |x: u32, y: u32| (x < 3 && y >= 4) || (x >= 4 && y < 3);
    let shade = |x, y| Luma([if dark(x, y) { 20u8 } else { 235 }]);
    image::GrayImage::from_fn(8, 8, shade).save(work.path("mask.png")).unwrap();
    work
}

/// Which patches of the first image are visible.
fn visible(found: &StateDict) -> Vec<bool> {
    Vec::try_from(found["active"].get(0).reshape([-1])).unwrap()
}

fn features(work: &Workplace, more: &[&str]) -> (String, StateDict) {
    let arguments = ["features", "--weights", "run", "--output", "f.png", "--tensors", "f"];
    let finished = work.run(&[&arguments, more, &IMAGES].concat()).succeeded();
    (finished.out, tensors(work, "f"))
}

fn sheet(work: &Workplace) -> RgbImage {
    image::load_from_memory(&read(work.path("f.png"))).unwrap().to_rgb8()
}

fn sizes(found: &StateDict, name: &str) -> Vec<Vec<i64>> {
    (0..).map_while(|stage| Some(found.get(&format!("{name}{stage}"))?.size())).collect()
}

#[test]
fn patches_masked_by_hand_are_seen_and_all_others_are_predicted_and_drawn() {
    let work = workplace();
    by_hand(&work);
    dense(&work);
    sparse(&work);
    refusals(&work);
}

fn by_hand(work: &Workplace) {
    let (_, by_list) = reconstruct(work, "run", &["--mask", "mask.json"]);
    check_reconstruction(&by_list, [2, 3, 64, 64], 2);
    assert_eq!(visible(&by_list), [true, false, false, true]);
    let picture = read(work.path("sheet.png"));
    let (_, by_picture) = reconstruct(work, "run", &["--mask", "mask.png"]);
    assert!(by_list.iter().all(|(name, tensor)| by_picture[name].equal(tensor)));
    assert_eq!(read(work.path("sheet.png")), picture);
    // A picture is brought to any grid; patches that are half dark stay visible.
    let (_, found) = reconstruct(work, "run", &["--mask", "mask.png", "--input-size", "128"]);
    check_reconstruction(&found, [2, 3, 128, 128], 12);
    let (_, found) = reconstruct(work, "run", &["--mask", "wide.json", "--input-size", "64x96"]);
    assert_eq!(visible(&found), [true, false, true, false, true, false]);
}

fn dense(work: &Workplace) {
    let (said, found) = features(work, &["--similar", "40,20"]);
    assert_says(&said, &["4 stages of resnet18, dense; sheet: ", "f.png", "tensors: "]);
    let stages = [(64, 16), (128, 8), (256, 4), (512, 2)];
    assert_eq!(sizes(&found, "feature"), stages.map(|(c, side)| vec![2, c, side, side]));
    assert_eq!(sizes(&found, "colours"), stages.map(|(_, side)| vec![2, 3, side, side]));
    assert_eq!(sizes(&found, "similarity"), stages.map(|(_, side)| vec![2, side, side]));
    assert_eq!((sizes(&found, "valid").len(), found["image"].size()), (0, vec![2, 3, 64, 64]));
    // The pixel lies in these positions, which are wholly like themselves.
    for (stage, (y, x)) in [(10, 5), (5, 2), (2, 1), (1, 0)].into_iter().enumerate() {
        let map = &found[&format!("similarity{stage}")];
        let own = map.select(2, x).select(1, y);
        assert!(bool::try_from((own - 1.0).abs().lt(1e-6).all()).unwrap(), "stage {stage}");
        assert!(map.min().double_value(&[]) < 0.99);
    }
    // The sheet has the colours: the upper left of stage 1 of the first image, below margin,
    // caption and headings.
    let drawn = sheet(work);
    let colour: Vec<u8> =
        Vec::try_from(found["colours0"].get(0).select(2, 0).select(1, 0)).unwrap();
    let shown = drawn.pixels().filter(|pixel| pixel.0[..] == colour).count();
    assert!(shown >= 12 * 12, "{shown} pixels of {colour:?}");
    // Four rows of five tiles of 192 pixels.
    let (width, height) = drawn.dimensions();
    assert!((5 * 192..6 * 192).contains(&width), "{width}");
    assert!((4 * 192..5 * 192).contains(&height), "{height}");

    let picture = read(work.path("f.png"));
    features(work, &["--similar", "40,20"]);
    assert_eq!(read(work.path("f.png")), picture, "the same again");
    // An exported encoder is enough, and any size that is not below the stride.
    let arguments = ["features", "--weights", "run/export/timm", "--input-size", "70x64"];
    let output = ["--output", "f.png", "--tensors", "f", IMAGES[0]];
    work.run(&[arguments.as_slice(), &output].concat()).succeeded();
    assert_eq!(sizes(&tensors(work, "f"), "feature")[3], [1, 512, 3, 2]);
    assert!(sheet(work).height() < height / 2);
}

fn sparse(work: &Workplace) {
    let (said, found) = features(work, &["--sparse", "--mask", "mask.json", "--similar", "1,1"]);
    assert_says(&said, &["sparse, 2 of 4 patches masked by hand"]);
    for stage in 0..4 {
        let (valid, feature) =
            (&found[&format!("valid{stage}")], &found[&format!("feature{stage}")]);
        let side = valid.size()[1];
        let expected = Tensor::from_slice(&[true, false, false, true]).view([2, 2]);
        let expected = expected.repeat_interleave_self_int(side / 2, 0, None);
        let expected = expected.repeat_interleave_self_int(side / 2, 1, None);
        assert!(valid.get(0).equal(&expected) && valid.get(1).equal(&expected));
        let hidden = valid.logical_not().unsqueeze(1);
        let none = |map: &Tensor, value: f64| {
            let other = map.ne(value).logical_and(&hidden);
            !bool::try_from(other.any()).unwrap()
        };
        assert!(none(feature, 0.0) && none(&found[&format!("colours{stage}")], 128.0));
        assert!(none(&found[&format!("similarity{stage}")].unsqueeze(1), 0.0));
        assert!(feature.abs().sum(Kind::Double).double_value(&[]) > 0.0);
    }
    // Half of each of the ten tiles of an image, and of those with similarities.
    let grey = sheet(work).pixels().filter(|pixel| **pixel == Rgb([128; 3])).count();
    let half = 20 * 192 * 192 / 2;
    assert!((half - 400..half + half / 20).contains(&grey), "{grey} of {half}");
    // Drawn as `reconstruct` draws it.
    let (_, drawn) = reconstruct(work, "run", &["--seed", "5"]);
    let (_, found) = features(work, &["--sparse", "--seed", "5"]);
    assert!(found["valid3"].unsqueeze(1).equal(&drawn["active"]));
}

fn refusals(work: &Workplace) {
    let picture = read(work.path("f.png"));
    let again = ["--output", "f.png", "--weights", "run", IMAGES[0]];
    for (command, message) in [
        ("reconstruct --mask wide.json", "patches is [2, 3], but images of this size have 2×2"),
        ("reconstruct --mask none.json", "none.json cannot be used: 0 of 4 patches are visible"),
        ("reconstruct --mask keys.json", "unknown field `hidden`"),
        ("reconstruct --mask run/config.toml", "the mask run/config.toml cannot be used"),
        ("reconstruct --mask array.npy", "must be JSON or a picture of 8-bit grey"),
        ("reconstruct --mask nowhere.json", "cannot read nowhere.json"),
        ("reconstruct --mask mask.png --input-size 512", "8×8 pixels, but 16×16 patches need"),
        ("reconstruct --mask mask.json --seed 1", "'--mask <FILE>' cannot be used with '--seed"),
        ("reconstruct --mask mask.json --mask-ratio 0.5", "cannot be used with '--mask-ratio"),
        ("features --mask mask.json", "--sparse"),
        ("features --seed 3", "--sparse"),
        ("features --sparse --mask wide.json", "patches is [2, 3]"),
        ("features --sparse --input-size 100", "input size is 100×100"),
        ("features --input-size 16", "at least the total stride 32"),
        ("features --similar 5", "it must be a row and a column"),
        ("features --similar 64,3", "similar is 64,3, but the pictures have rows 0 to 63"),
        ("features --similar 0,-1", "columns 0 to 63"),
        ("features --sparse --mask mask.json --similar 2,60", "(row 0, column 1) is masked in"),
        ("features --weights images", "images"),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let again = if command.contains("--weights") {
            [&again[..2], &again[4..]].concat()
        } else {
            again.to_vec()
        };
        work.run(&[words, again].concat()).refused(&[message]);
        assert_eq!(read(work.path("f.png")), picture, "{command} left the sheet alone");
    }
    // Nothing that is read is written over.
    let mask = read(work.path("mask.png"));
    let arguments =
        ["reconstruct", "--weights", "run", "--mask", "mask.png", "--output", "mask.png"];
    work.run(&[arguments.as_slice(), &[IMAGES[0]]].concat()).refused(&["written over"]);
    assert_eq!(read(work.path("mask.png")), mask);
}
