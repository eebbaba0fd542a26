//! What cannot be run is refused with a sentence, and nothing is lost.

use crate::common::{names, read, with_images};

#[test]
fn settings_that_break_a_rule_are_named() {
    let work = with_images(2);
    work.refuses_to_train(&[
        ("--mask-ratio 1.0", "mask-ratio is 1, but it must be in (0, 1)"),
        ("--mask-ratio 0.95", "mask-ratio is 0.95, but of 2×2 patches it would leave 0 visible"),
        ("--input-size 100", "input-size is 100, but its sides must be positive multiples of 32"),
        ("--input-size 0", "\"0\" is no size in pixels; write 224, or 192x256"),
        ("--model resnet51", "model is \"resnet51\", but it must be one of resnet18"),
        ("--accum-steps 3", "accum-steps is 3, but it must divide batch-size 4"),
        ("--batch-size 0", "batch-size is 0, but it must be at least 1"),
        ("--epochs 0", "epochs is 0, but it must be at least 1"),
        ("--warmup-epochs 4", "warmup-epochs is 4, but it must be below epochs 4"),
        ("--base-lr=-1", "base-lr is -1, but it must be in [0, ∞)"),
        ("--beta2 1", "beta2 is 1, but it must be in [0, 1)"),
        ("--crop-scale 0.5,0.2", "crop-scale is 0.5–0.2, but it must ascend"),
        ("--crop-scale 3", "\"3\" is not two numbers like 0.67,1"),
        ("--mean 0.5", "mean has 1 values, but the images have 3 channels"),
        ("--std 1,0,1", "std is [1.0, 0.0, 1.0], but every value must be positive"),
        ("--in-chans 5", "5 channels have no usual statistics: give --mean and --std"),
        ("--decoder-width 100", "decoder width is 100, but it is halved at each"),
        ("--drop-path 1", "drop_path_rate is 1, but it must be in [0, 1)"),
        ("--device tpu", "device is \"tpu\", but it must be auto, cpu, cuda or cuda:N"),
        ("--optimizer adam", "invalid value 'adam'"),
        ("--execution dense", "invalid value 'dense'"),
        ("--preset huge", "invalid value 'huge'"),
        ("--data nothing", "nothing"),
        ("--config missing.toml", "cannot read settings from missing.toml"),
        ("--resume missing.safetensors", "missing.safetensors"),
        ("--init-weights missing.pth", "missing.pth"),
        ("--resume --overwrite", "cannot be used with"),
    ]);
}

#[test]
fn a_cuda_device_that_is_not_there() {
    if !tch::Cuda::is_available() {
        let work = with_images(2);
        work.train("run", &["--device", "cuda"]).refused(&["device is cuda", "xtask doctor"]);
    }
}

#[test]
fn files_with_settings() {
    let work = with_images(2);
    let refuse = |text: &str, message: &str| {
        std::fs::write(work.path("a.toml"), text).unwrap();
        work.train("run", &["--config", "a.toml"]).refused(&[message]);
    };
    refuse("epoch = 3", "there is no such setting; the nearest is epochs");
    refuse("seed = \"many\"", "seed is \"many\", but u64 is expected");
    refuse(
        "execution = \"dense\"",
        "execution is \"dense\", but one of `auto`, `packed`, `masked`",
    );
    refuse("epochs = ", "a.toml is not valid TOML");

    std::fs::write(work.path("a.toml"), "epochs = 7\nseed = 9\ninput-size = \"64x96\"\n").unwrap();
    let arguments = ["train", "--data", "d", "--output", "o", "--config", "a.toml"];
    let more = ["--preset", "demo", "--seed", "3", "--bs", "32", "--wp_ep", "2", "--dump-config"];
    let dumped = work.run(&[arguments.as_slice(), &more].concat()).succeeded().out;
    // File over preset, flag over file, official names as aliases.
    for line in
        ["epochs = 7", "seed = 3", "input-size = \"64x96\"", "batch-size = 32", "warmup-epochs = 2"]
    {
        assert!(dumped.lines().any(|l| l == line), "no {line:?} in:\n{dumped}");
    }
    assert!(dumped.contains("model = \"resnet18\""), "the preset's:\n{dumped}");
    // What was dumped can be read again and means the same.
    std::fs::write(work.path("b.toml"), &dumped).unwrap();
    let again = work.run(&["train", "--config", "b.toml", "--dump-config"]).succeeded().out;
    assert_eq!(again, dumped);
}

#[test]
fn folders_that_hold_something() {
    let work = with_images(4);
    work.train("images", &[]).refused(&["images", "--overwrite", "--resume"]);
    work.train("images", &["--overwrite"]).refused(&["images"]);
    assert!(work.path("images/class0/000.png").exists(), "photographs are never deleted");

    work.train("run", &["--epochs", "2"]).succeeded();
    let before = read(work.path("run/checkpoints/last.safetensors"));
    work.train("run", &["--epochs", "2"]).refused(&["run", "--overwrite", "--resume"]);
    work.train("run", &["--epochs", "2", "--resume", "--model", "resnet34"])
        .refused(&["does not fit these settings"]);
    work.train("run", &["--resume", "--optimizer", "lamb", "--decoder-width", "64"])
        .refused(&["does not fit these settings"]);
    assert_eq!(read(work.path("run/checkpoints/last.safetensors")), before);
    work.train("run", &["--epochs", "2", "--overwrite", "--seed", "4"]).succeeded();
    assert_ne!(read(work.path("run/checkpoints/last.safetensors")), before);
}

#[test]
fn a_damaged_checkpoint() {
    let work = with_images(4);
    work.train("run", &["--epochs", "2"]).succeeded();
    let path = work.path("run/checkpoints/last.safetensors");
    let bytes = read(&path);
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    work.train("run", &["--resume"]).refused(&["last.safetensors"]);
    std::fs::write(&path, b"not a checkpoint").unwrap();
    work.train("run", &["--resume"]).refused(&["last.safetensors"]);
}

#[test]
fn a_loss_that_is_not_finite() {
    let work = with_images(8);
    let finished = work.stops_at_a_loss_that_is_not_finite(
        "--optimizer sgd --clip-grad 0 --base-lr 1e30 --warmup-epochs 0 --epochs 50 \
         --checkpoint-steps 1",
    );
    assert!(finished.err.contains("class"), "{}", finished.err);
    let mut list = names(&work.path("run"));
    list.retain(|name| name.starts_with("non-finite-step-"));
    assert_eq!(list.len(), 1, "{}", finished.err);
    let images = String::from_utf8(read(work.path("run").join(&list[0]))).unwrap();
    assert_eq!(images.lines().count(), 4, "the batch's images: {images}");
    // The kept checkpoint is finite.
    let path = work.path("run/checkpoints/last.safetensors");
    let checkpoint = engine::checkpoint::CheckpointFile::open(&path).unwrap();
    for (name, tensor) in checkpoint.section("model").unwrap() {
        assert_eq!(tensor.isfinite().all().int64_value(&[]), 1, "{name}");
    }
}

#[test]
fn unreadable_images() {
    let work = with_images(9);
    std::fs::write(work.path("images/class0/broken.jpg"), b"\xff\xd8 not a picture").unwrap();
    let finished = work.train("some", &["--epochs", "3", "--max-corrupt", "0.2"]).succeeded();
    assert!(finished.err.contains("skipped class0/broken.jpg"), "{}", finished.err);
    assert!(read(work.path("some/corrupt.txt")).starts_with(b"class0/broken.jpg"), "listed");

    for number in 0..6 {
        std::fs::write(work.path(&format!("images/class1/broken{number}.png")), b"").unwrap();
    }
    work.train("many", &["--max-corrupt", "0.2"]).refused(&[
        "--max-corrupt",
        "class1/broken",
        "repair or remove",
    ]);

    std::fs::create_dir(work.path("texts")).unwrap();
    std::fs::write(work.path("texts/a.txt"), b"hello").unwrap();
    work.train("none", &["--data", "texts"]).refused(&["texts"]);
}

#[test]
fn weights_that_do_not_fit() {
    let work = with_images(4);
    work.train("run", &["--epochs", "2", "--model", "resnet18"]).succeeded();
    work.train("next", &["--init-weights", "run", "--model", "resnet50"]).refused(&["run"]);
    std::fs::write(work.path("w.pth"), b"hello").unwrap();
    work.train("next", &["--init-weights", "w.pth"]).refused(&["w.pth"]);
    let export = "run/export/resnet18_spark.safetensors";
    let args =
        ["reconstruct", "--checkpoint", export, "--output", "s.png", "images/class0/000.png"];
    work.run(&args).refused(&["holds no SparK decoder"]);
    let args = ["export", "--checkpoint", export, "--format", "detectron2", "--output", "w.onnx"];
    work.run(&args).refused(&["w.onnx", ".pth, .pkl or .safetensors"]);
    work.run(&["inspect", "w.pth"]).refused(&["w.pth"]);
    work.run(&["inspect", "missing.pth"]).refused(&["missing.pth"]);
}
