//! Networks that `torch.export` has written.

use std::path::Path;

use crate::common::{assert_says, run_python, with_images};

#[test]
fn a_run_needs_its_file_only_once() {
    let work = with_images(4);
    run_python("graph_networks.py", &[Path::new("make"), &work.path("")]);
    let short = ["--epochs", "1", "--warmup-epochs", "0", "--input-size", "64"];
    for name in ["small", "resnet18"] {
        let file = format!("{name}.pt2");
        let begun = work.train(name, &[short.as_slice(), &["--model", &file]].concat()).succeeded();
        assert_says(&begun.err, &[&format!("weights  those of {file}, the head's random")]);
        let weights = format!("{name}.safetensors");
        let flags = ["--model", &file, "--backbone-weights", &weights];
        let loaded = work.train("loaded", &[short.as_slice(), &flags].concat()).succeeded();
        assert_says(&loaded.err, &["backbone from"]);
        std::fs::remove_dir_all(work.path("loaded")).unwrap();

        let probe = ["probe", "--data", "images", "--knn-only", "--k", "2", "--device", "cpu"];
        let said = work.run(&[probe.as_slice(), &["--model", &file]].concat()).succeeded().out;
        assert_says(&said, &["the file's own weights"]);
        std::fs::remove_file(work.path(&file)).unwrap();
        let went_on =
            work.run(&["train", "--output", name, "--resume", "--epochs", "2"]).succeeded();
        assert_says(&went_on.err, &["resuming after step 2"]);
        work.run(&["evaluate", "--weights", name, "--device", "cpu"]).succeeded();
        work.run(&[probe.as_slice(), &["--weights", name]].concat()).succeeded();

        let export = work.path(&format!("{name}/export"));
        let check = [Path::new("check"), &export, Path::new(name), Path::new("classifier")];
        run_python("graph_networks.py", &check);
        let again = ["export", "--weights", name, "--device", "cpu", "--output"];
        work.run(&[again.as_slice(), &["again.pth"]].concat()).succeeded();
        work.run(&[again.as_slice(), &["n.pt2", "--format", "pt2"]].concat())
            .refused(&["without the classifier that was learned"]);
    }
    let timm = ["--format", "timm", "--timm-name", "resnet18", "--device", "cpu"];
    let export = ["export", "--weights", "resnet18", "--output", "timm"];
    work.run(&[export.as_slice(), &timm].concat()).succeeded();
    run_python("graph_networks.py", &[Path::new("timm"), &work.path("timm"), Path::new("3")]);
}
