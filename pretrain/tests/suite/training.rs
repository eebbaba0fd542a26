//! What the training loop promises, whatever the program trains.

use crate::common::{
    SHORTER, Workplace, blobs, labelled, make_pending, names, records, shorter, shown_on_board,
    with_images, words,
};
use serde_json::Value;

const EXPORT: &str = "export/tiny_spark.safetensors";

/// Step and figure of every probe.
fn probes(work: &Workplace, run: &str) -> Vec<(u64, f64)> {
    let figure = |record: &Value| Some((record["step"].as_u64()?, record["knn_top1"].as_f64()?));
    records(&work.path(run)).iter().filter_map(figure).collect()
}

#[test]
fn asked_to_end_in_the_last_step_a_run_finishes() {
    let work = with_images(4);
    let finished = work.train_terminated_in_its_only_step("run", &SHORTER).succeeded();
    assert!(finished.out.contains("encoder"), "{}", finished.out);
    assert!(work.path("run").join(EXPORT).exists());
}

/// At the step that ended the epoch, like all else, so that a resumed run writes it again.
#[test]
fn the_board_shows_each_epochs_loss_once() {
    let work = with_images(8);
    // Killed in the third epoch, it goes on within the second.
    let more = ["--checkpoint-epochs", "4", "--checkpoint-steps", "3"];
    work.train_killed_after("run", &[5], &more);
    let shown = shown_on_board(&work.path("run"));
    let of = |tag: &str| -> Vec<(u64, f32)> {
        shown.iter().filter(|shown| shown.tag == tag).map(|s| (s.step, s.value)).collect()
    };
    let losses = of("epoch/loss");
    let steps: Vec<u64> = losses.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [2, 4, 6, 8]);
    let epoch = |record: &Value| Some((record["step"].as_u64()?, record["epoch_loss"].as_f64()?));
    let recorded: Vec<(u64, f32)> = records(&work.path("run"))
        .iter()
        .filter_map(epoch)
        .map(|(step, loss)| (step, loss as f32))
        .collect();
    assert_eq!(losses, recorded);
    assert_eq!(of("train/loss").len(), 8);
}

#[test]
fn an_interval_of_0_is_the_end_of_the_run_alone() {
    let work = with_images(4);
    labelled(&work);
    let more = "--epochs 3 --checkpoint-epochs 0 --picture-epochs 0 --probe labelled \
                --probe-epochs 0 --keep 9";
    work.train("run", &words(more)).succeeded();
    let checkpoints = ["best.safetensors", "epoch-0003.safetensors", "last.safetensors"];
    assert_eq!(names(&work.path("run/checkpoints")), checkpoints);
    assert_eq!(probes(&work, "run").iter().map(|(step, _)| *step).collect::<Vec<_>>(), [3]);
    assert!(!work.path("run/pictures").exists());
    assert!(work.path("run/reconstruction.png").exists());
}

/// Without shared statistics each process has followed its own images, here dull ones and bright
/// ones; rank 0's are saved, and those are probed, on all processes.
#[test]
fn what_is_probed_on_several_processes_is_what_is_saved() {
    let work = with_images(8);
    for shard in 0..2u32 {
        let mut archive = tar::Builder::new(Vec::new());
        for number in 0..8 {
            let mut picture = blobs(number);
            picture.pixels_mut().for_each(|pixel| {
                pixel.0 = pixel.0.map(|value| if shard == 0 { value / 3 } else { 200 + value / 5 });
            });
            picture.save(work.path("a.png")).unwrap();
            archive.append_path_with_name(work.path("a.png"), format!("{number}.png")).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        std::fs::write(work.path(&format!("{shard}.tar")), bytes).unwrap();
    }
    // Labels that say nothing, so that the least difference of features gives other ones.
    for (part, numbers) in [("train", 100..140), ("val", 200..260)] {
        for number in numbers {
            let class = work.path(&format!("labelled/{part}/class{}", number % 2));
            std::fs::create_dir_all(&class).unwrap();
            blobs(number).save(class.join(format!("{number}.png"))).unwrap();
        }
    }
    let more = "--data {0..1}.tar --own-shards --sync-bn false --probe labelled --workers 1 \
                --epochs 2 --base-lr 0.2";
    work.train_together(2, "run", &words(more));
    let together = probes(&work, "run");
    // The same checkpoint, probed again by one process.
    make_pending(&work.path("run/checkpoints/last.safetensors"));
    work.run(&["train", "--output", "run", "--resume"]).succeeded();
    assert_eq!(probes(&work, "run"), together);
}

#[test]
fn every_optimizer_goes_on_with_the_same_bits_and_averages() {
    with_images(4).goes_on_with_every_optimizer(EXPORT, "0.005", 2);
}

/// Averages are what is exported, by the run itself and afterwards.
#[test]
fn averages_are_exported() {
    let work = with_images(4);
    work.train("plain", &shorter(&[])).succeeded();
    work.train("run", &shorter(&["--ema", "0.9"])).succeeded();
    let encoder = |name: &str| crate::common::tensors(&work, name);
    let (plain, averaged) =
        (encoder(&format!("plain/{EXPORT}")), encoder(&format!("run/{EXPORT}")));
    let name = "stem.0.weight";
    assert!(!plain[name].equal(&averaged[name]), "the average lies behind");
    let ema = crate::common::section(&work, "run", "ema");
    assert!(ema[&format!("sparse_encoder.sp_cnn.{name}")].equal(&averaged[name]));
    let export = ["export", "--checkpoint", "run", "--format", "official", "--output", "e.pth"];
    work.run(&export).succeeded();
    assert!(encoder("e.pth")[name].equal(&averaged[name]));
}
