//! Pretraining on several processes: the same run on any number of them.

use crate::common::{Finished, TINY, Together, Workplace, apart, records, with_images, words};

/// Eight steps in double precision, large enough ones that a wrong gradient shows.
const EIGHT: &str = "--precision float64 --batch-size 8 --epochs 4 --base-lr 0.2 --workers 1 \
                      --checkpoint-epochs 4";

/// Trains on one process and on each of these numbers of them, and compares every step.
fn same_on(counts: &[usize], work: &Workplace, more: &str) {
    work.comes_out_the_same(counts, 8, &[words(EIGHT), words(more)].concat());
    let one = work.curve("one");
    let progress = one[0].1 - one[7].1;
    assert!(progress.abs() > 1e-2, "nothing was learned that could differ: {one:?}");
}

#[test]
fn a_network_with_batch_norms_comes_out_the_same() {
    let work = with_images(16);
    same_on(&[2, 4], &work, "");
    // Speed is that of all, and each one's wait for data is told.
    let waits = |run: &str| records(&work.path(run))[0]["data_wait_by_rank"].clone();
    assert_eq!(waits("4").as_array().map(Vec::len), Some(4));
    assert!(waits("one").is_null());
    // The norms' statistics are part of it: without sharing them the run is another.
    work.train_together(2, "apart", &words(&format!("{EIGHT} --sync-bn false")));
    let (loss, _) = apart(&work.curve("one"), &work.curve("apart"));
    assert!(loss > 1e-3, "{loss:e}");
}

#[test]
fn a_resnet_comes_out_the_same() {
    same_on(&[2], &with_images(16), "--model resnet18");
}

#[test]
fn a_convnext_comes_out_the_same() {
    // Drop-path, and parts of a batch one after another. Its last norm is never reached by a
    // gradient.
    let work = with_images(16);
    same_on(&[2], &work, "--model convnext_atto --drop-path 0.3 --accum-steps 2");
}

#[test]
fn what_cannot_be_divided_is_refused_by_all() {
    let work = with_images(4);
    let ranks = work.start_together(3, "run", &[], &[]).end();
    for (rank, finished) in ranks.into_iter().enumerate() {
        let rule = "batch-size is 4, but it is divided among 3 processes";
        assert!(!finished.ok && finished.err.contains(rule), "rank {rank}: {}", finished.err);
    }
    // What rank 0 alone can see keeps the others from beginning too.
    let ranks = work.start_together(2, "images", &["--overwrite"], &[]).end();
    let [main, other] = &ranks[..] else { unreachable!() };
    assert!(main.err.contains("no run was begun there"), "{}", main.err);
    assert!(other.err.contains("stopped because of rank 0"), "{}", other.err);
}

#[test]
fn each_process_reads_shards_of_its_own_alone() {
    let work = with_images(16);
    let images: Vec<std::path::PathBuf> = ["class0", "class1"]
        .iter()
        .flat_map(|class| std::fs::read_dir(work.path("images").join(class)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    // Each process has its own folder, in which the others' shards are broken.
    for shard in 0..4 {
        let mut builder = tar::Builder::new(Vec::new());
        for image in images.iter().skip(shard).step_by(4) {
            builder.append_path_with_name(image, image.file_name().unwrap()).unwrap();
        }
        let whole = builder.into_inner().unwrap();
        for rank in 0..2 {
            let folder = work.path(&format!("rank{rank}"));
            std::fs::create_dir_all(&folder).unwrap();
            let own = shard % 2 == rank;
            let bytes: &[u8] = if own { &whole } else { b"no archive".as_slice() };
            std::fs::write(folder.join(format!("{shard}.tar")), bytes).unwrap();
        }
    }
    let run = work.path("run");
    let (run, model) = (run.to_str().unwrap(), work.path(TINY));
    let start = |more: &[&str]| {
        let own = ["--data", "{0..3}.tar", "--model", model.to_str().unwrap(), "--workers", "1"];
        let more = [&own, ["--overwrite"].as_slice(), more].concat();
        let arguments = work.train_arguments(run, &more);
        Together::start(2, &[], |rank| {
            let mut command = work.command(&arguments);
            command.current_dir(work.path(&format!("rank{rank}")));
            command
        })
        .end()
    };
    let ends = start(&["--own-shards"]);
    assert!(ends.iter().all(|end| end.ok), "{}\n{}", ends[0].err, ends[1].err);
    assert!(ends[0].err.contains("images   16 in {0..3}.tar"), "{}", ends[0].err);
    // 8 images each in batches of 2: 4 steps an epoch.
    assert_eq!(work.curve("run").len(), 16);
    // Without it each process comes upon images in the others' shards, broken here.
    let ends = start(&[]);
    assert!(ends.iter().all(|end| !end.ok));
    let told = |end: &Finished| end.err.contains("files can't be used");
    assert!(ends.iter().any(told), "{}\n{}", ends[0].err, ends[1].err);
}
