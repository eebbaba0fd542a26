//! What must not be lost: pictures, a user's files, and images that cannot be read.

use super::*;

pub fn predicts_without_loss(work: &Workplace) {
    let picture = image::open(work.path("photos/0.png")).unwrap();
    std::fs::create_dir_all(work.path("own/deep")).unwrap();
    for name in ["photo.png", "photo.bmp", "photo.tif", "photo.webp", "deep/photo.bmp", "a.jpg"] {
        picture.save(work.path("own").join(name)).unwrap();
    }
    std::os::unix::fs::symlink(work.path("own"), work.path("link")).unwrap();
    let before = files(work, "own");
    let predict = |more: &[&str]| {
        let arguments = ["predict", "--weights", "run", "--short-side", "32", "--max-side", "48"];
        work.run(&[arguments.as_slice(), more].concat())
    };
    // Nothing is written where an image would be, under whatever name.
    for (arguments, parts) in [
        (vec!["--output", "own", "own"], vec!["where the images of own are"]),
        (vec!["--output", "link", "own"], vec!["where the images of own are"]),
        (vec!["--output", "own/deep/..", "own"], vec!["where the images of own are"]),
        (vec!["--output", "own", "own/a.jpg", "--overwrite"], vec!["own/a.jpg, which is read"]),
        (vec!["--output", "own", "own/*.jpg"], vec!["own/a.jpg, which is read"]),
        (vec!["--output", "own", "photos/0.png", "own/deep"], vec!["photo.png", "--overwrite"]),
        (vec!["--output", "own/a.jpg", "photos"], vec!["must be a folder"]),
    ] {
        predict(&arguments).refused(&parts);
        assert!(files(work, "own") == before, "{arguments:?}");
    }
    // Results inside the images' folder are no images the next time.
    for output in ["own/found", "own/found", "own/again"] {
        predict(&["--output", output, "own"]).succeeded();
        let found = work.json(&format!("{output}/predictions.json"));
        assert_eq!(found["images"].as_array().unwrap().len(), 6, "{output}");
    }
    // Under two names it is one image.
    predict(&["--output", "once", "own/deep", "own/deep/photo.bmp", "./link/deep/photo.bmp"])
        .succeeded();
    assert_eq!(work.json("once/predictions.json")["images"].as_array().unwrap().len(), 1);
    let mut after = files(work, "own");
    let drawn: Vec<String> = after
        .keys()
        .filter_map(|name| name.strip_prefix("own/found/"))
        .map(str::to_owned)
        .collect();
    let expected = [
        ".detect-predict.json",
        "a.jpg",
        "deep/photo.png",
        "photo.bmp.png",
        "photo.png",
        "photo.tif.png",
        "photo.webp.png",
        "predictions.json",
    ];
    assert_eq!(drawn, expected);
    after.retain(|name, _| !name.starts_with("own/found") && !name.starts_with("own/again"));
    assert!(after == before);
}

pub fn leaves_out_what_cannot_be_read(work: &Workplace) {
    let whole = read(work.path("demo/val/000001.jpg"));
    std::fs::create_dir(work.path("torn")).unwrap();
    for name in ["000000.jpg", "000001.jpg", "000002.jpg"] {
        std::fs::copy(work.path("demo/val").join(name), work.path("torn").join(name)).unwrap();
    }
    std::fs::write(work.path("torn/000001.jpg"), &whole[..whole.len() / 4]).unwrap();
    let annotations = "demo/annotations/instances_val.json";
    let data = ["--annotations", annotations, "--images", "torn"];
    let evaluate = |more: &[&str]| {
        work.run(&[["evaluate", "--weights", "run"].as_slice(), &data, more].concat())
    };
    // One of three is more than one in a hundred.
    evaluate(&[]).refused(&["left out 000001.jpg: ", "1 of 3 images", "--max-corrupt"]);
    let told = evaluate(&["--max-corrupt", "0.5", "--output", "torn-scores"]).succeeded();
    assert_says(&told.err, &["left out 000001.jpg: ", "1 of 3 images are not scored"]);
    assert_eq!(work.json("torn-scores/report.json")["images"], 2);
    // The same figures as of a data set without that image.
    let mut rest = work.json(annotations);
    let image = |entry: &Value, key: &str| entry[key] == 2;
    rest["images"].as_array_mut().unwrap().retain(|entry| !image(entry, "id"));
    rest["annotations"].as_array_mut().unwrap().retain(|entry| !image(entry, "image_id"));
    assert_eq!(rest["images"].as_array().unwrap().len(), 2);
    std::fs::write(work.path("rest.json"), rest.to_string()).unwrap();
    let arguments = ["evaluate", "--weights", "run", "--annotations", "rest.json"];
    let more = ["--images", "torn", "--output", "rest-scores"];
    work.run(&[arguments.as_slice(), &more].concat()).succeeded();
    for file in ["report.json", "errors.bbox.json", "results.segm.json"] {
        assert_eq!(
            work.json(&format!("torn-scores/{file}")),
            work.json(&format!("rest-scores/{file}"))
        );
    }
    evaluate(&["--max-corrupt", "0"]).refused(&["000001.jpg", "--max-corrupt"]);
    // In training, too.
    let data = ["--val-annotations", annotations, "--val-images", "torn", "--epochs", "1"];
    let told = work.train("torn-run", &data).succeeded();
    assert_says(&told.err, &["left out of validation: 000001.jpg: "]);
    assert_says(&String::from_utf8_lossy(&read(work.path("torn-run/corrupt.txt"))), &["000001"]);
    assert_eq!(work.json("torn-run/report.json")["images"], 2);
    work.train("none-run", &[data.as_slice(), &["--max-corrupt", "0"]].concat())
        .refused(&["000001.jpg", "--max-corrupt"]);
}
