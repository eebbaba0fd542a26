//! Runs that are published on a hub, and what is read from one. The hub is on the loopback
//! interface.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use test_hub::{Fault, File, Hub, Side, show_to};

use crate::common::{Finished, Workplace, assert_says, names, read, shorter, with_images};

/// The program, for which `endpoint` is the hub.
fn command(work: &Workplace, endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = work.command(arguments);
    show_to(&mut command, endpoint, &work.path("cache"));
    command
}

fn run(work: &Workplace, hub: &Hub, arguments: &[&str]) -> Finished {
    Finished::from(command(work, &hub.endpoint(), arguments).output().unwrap())
}

#[test]
fn a_run_is_published_and_begun_from() {
    let (work, hub) = (with_images(8), Hub::start());
    work.train("run", &shorter(&["--model", "resnet18"])).succeeded();
    let export = ["export", "--weights", "run", "--format", "hub", "--license", "cc-by-4.0"];
    let to = |folder| [&export[..], &["--repo", "me/r18", "--output", folder]].concat();
    let told = work.run(&to("r18")).succeeded().out;
    assert_says(&told, &["hf upload me/r18 r18", "these may be published", "120 tensors"]);
    let files = ["README.md", "config.json", "loss.png", "model.safetensors", "reconstruction.png"];
    assert_eq!(names(&work.path("r18")), files);
    let card = String::from_utf8(read(work.path("r18/README.md"))).unwrap();
    assert_says(
        &card,
        &[
            "---\nlicense: cc-by-4.0\nlibrary_name: timm\n",
            "pipeline_tag: image-feature-extraction\n",
            "| data | a set of images called images |",
            "| masked | 60 % of the patches |",
            "at step 2 |",
            "](loss.png)",
            "](reconstruction.png)",
            "\"hf-hub:me/r18\"",
            "hf:me/r18 --format detectron2",
            "input-size = 64",
        ],
    );
    assert!(!card.contains(work.path("").to_str().unwrap()), "{card}");

    // Nothing is written over, and nothing is left of what failed.
    let before = read(work.path("r18/README.md"));
    work.run(&to("r18")).refused(&["r18 is not empty", "name a new folder"]);
    assert_eq!(read(work.path("r18/README.md")), before);
    let listed = names(&work.path(""));
    for (flags, why) in [
        (&["--license", "My Licence"][..], "--license is \"My Licence\""),
        (&["--repo", "me"], "--repo is \"me\", but it must be OWNER/NAME"),
    ] {
        let arguments = ["export", "--weights", "run", "--format", "hub", "--output", "x"];
        work.run(&[&arguments, flags].concat()).refused(&[why]);
    }
    let arguments = ["export", "--weights", "run", "--format", "timm", "--license", "mit"];
    work.run(&arguments).refused(&["--license is mit, but it is for --format hub"]);
    assert_eq!(names(&work.path("")), listed);

    hub.upload("me/r18", &work.path("r18")).unwrap();
    let said = run(&work, &hub, &["inspect", "hf:me/r18"]).succeeded();
    assert_says(&said.out, &["timm folder: 120 tensors", "model: resnet18, complete"]);
    assert_eq!(said.err, "", "no bar where there is no terminal");
    let export = ["export", "--weights", "hf:me/r18@main", "--format", "torchvision"];
    run(&work, &hub, &export).refused(&["--output is not given, but hf:me/r18@main"]);
    let written = run(&work, &hub, &[&export[..], &["--output", "r18.pth"]].concat()).succeeded();
    assert_says(&written.out, &["hf:me/r18@main (120 tensors of resnet18)"]);

    // The model is the one that config.json names.
    hub.fail(Side::Cdn, [Fault::Cut(1000)]);
    std::fs::remove_dir_all(work.path("cache")).unwrap();
    let begun = [
        "train",
        "--preset",
        "paper",
        "--output",
        "next",
        "--data",
        "images",
        "--init-weights",
        "hf:me/r18",
        "--input-size",
        "64",
        "--decoder-width",
        "32",
        "--batch-size",
        "4",
        "--epochs",
        "1",
        "--warmup-epochs",
        "0",
        "--threads",
        "1",
        "--device",
        "cpu",
    ];
    let said = run(&work, &hub, &begun).succeeded().err;
    assert_says(
        &said,
        &["the model is resnet18, as hf:me/r18 tells", "initial weights from hf:me"],
    );
    let config = String::from_utf8(read(work.path("next/config.toml"))).unwrap();
    assert_says(&config, &["model = \"resnet18\"", "init-weights = \"hf:me/r18\""]);
}

#[test]
fn a_network_is_taken_from_a_hub_and_not_asked_for_again() {
    let (work, hub) = (with_images(8), Hub::start());
    let network = File::large(read(work.path("tiny.pt2")));
    hub.change("me/nets", |repo| {
        repo.commit("main", &[("tiny.pt2", network)]);
    });
    let said = run(&work, &hub, &["inspect", "hf:me/nets"]).succeeded().out;
    assert_says(&said, &["checked: with all patches visible"]);
    let one = ["--model", "hf:me/nets", "--epochs", "1", "--warmup-epochs", "0"];
    run(&work, &hub, &work.train_arguments("run", &one)).succeeded();
    std::fs::remove_dir_all(work.path("cache")).unwrap();
    hub.requests();
    // The checkpoint carries the network.
    let more = ["train", "--output", "run", "--resume", "--epochs", "2"];
    run(&work, &hub, &more).succeeded();
    run(&work, &hub, &["inspect", "run"]).succeeded();
    assert!(hub.requests().is_empty());
}

#[test]
fn what_the_hub_refuses_stops_the_program_at_once() {
    let (work, hub) = (with_images(0), Hub::start());
    run(&work, &hub, &["inspect", "hf:me/none"]).refused(&["hf:me/none", "HF_TOKEN"]);
    run(&work, &hub, &["inspect", "hf:none"]).refused(&["hf:owner/name"]);
    let offline = |endpoint: &str| {
        let mut command = command(&work, endpoint, &["inspect", "hf:me/net"]);
        Finished::from(command.env("HF_HUB_OFFLINE", "1").output().unwrap())
    };
    offline(&hub.endpoint()).refused(&["HF_HUB_OFFLINE is set", "is not kept in"]);
    offline("hub.example").refused(&["HF_ENDPOINT is \"hub.example\""]);
}

#[test]
fn a_proxy_is_asked_for_the_hub() {
    let work = with_images(0);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let (asked, first) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in proxy.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut request = String::new();
            // To the empty line: what is left unread would break the answer off.
            while stream.read_line(&mut request).unwrap() > 2 {}
            stream.get_mut().write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").unwrap();
            // Nobody waits for those of further tries.
            let _ = asked.send(request);
        }
    });
    let mut command = command(&work, "https://hub.invalid", &["inspect", "hf:me/net"]);
    let finished = Finished::from(command.env("HTTPS_PROXY", address).output().unwrap());
    finished.refused(&["the proxy does not lead to hub.invalid"]);
    let request = first.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(request.starts_with("CONNECT hub.invalid:443 "), "{request}");
}
