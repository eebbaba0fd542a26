//! Python's huggingface_hub and timm as second clients of one hub and one cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use backbone::hub::{Settings, Want, fetch};
use backbone::models::{self, BuildOptions};
use backbone::weights::{self, StateDict, TimmConfig, write_safetensors};
use backbone::{FeatureMap, Mode};
use engine::export::{Card, CardTask, ExportFormat, HubFlags, write_hub_folder};
use engine::remote::Output;
use spark_tests::{python, rule};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use test_hub::{File, Hub, Side};

/// Float32 through some twenty layers, summed in another order, as in `timm_parity`.
const FLOAT32: f64 = 1e-5;

/// A hub and a cache that both clients use.
struct Place {
    hub: Hub,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { hub: Hub::start(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, offline: bool) -> Settings {
        Settings {
            endpoint: self.hub.endpoint(),
            token: None,
            cache: self.path("home/hub"),
            offline,
            progress: false,
            patience: Duration::from_secs(10),
            pause: Duration::from_millis(10),
        }
    }

    fn python(&self, offline: bool, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/hub_client.py");
        let mut command = Command::new(python());
        command.arg(script).args(arguments);
        self.hub.show_to(&mut command, &self.path("home"));
        command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
        command.env("HF_HUB_DISABLE_TELEMETRY", "1").env("HF_HUB_DISABLE_XET", "1");
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}:\n{error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What was read of weights since the last call.
    fn bodies(&self) -> usize {
        let requests = self.hub.requests().into_iter();
        requests.filter(|request| request.side == Side::Cdn && request.method == "GET").count()
    }
}

#[test]
fn what_one_client_fetches_the_other_finds() {
    let files = ["model.safetensors", "config.json", "more/notes.txt"];
    for python_first in [true, false] {
        let place = Place::new();
        place.hub.change("me/net", |repo| {
            let content = [
                File::large(vec![7; 300_000]),
                File::small(r#"{"architecture": "resnet18"}"#),
                File::small("notes"),
            ];
            let files: Vec<_> = files.into_iter().zip(content).collect();
            repo.commit("v1", &files);
            repo.commit("main", &files);
        });
        let by_python = |offline: bool| -> Vec<PathBuf> {
            let arguments = [&["fetch", "me/net"][..], &files].concat();
            place.python(offline, &arguments).lines().map(PathBuf::from).collect()
        };
        let by_rust = |offline: bool| -> Vec<PathBuf> {
            let settings = place.settings(offline);
            let fetch = |file: &str| {
                let name = format!("hf:me/net/{file}").parse().unwrap();
                fetch(&name, Want::Weights, &settings).unwrap()
            };
            files.into_iter().map(fetch).collect()
        };
        let first = if python_first { by_python(false) } else { by_rust(false) };
        assert_eq!(place.bodies(), 1);
        for offline in [false, true] {
            let (python, rust) = (by_python(offline), by_rust(offline));
            // A line more of Python's would be a warning.
            assert_eq!((&python, &rust), (&first, &first), "{python_first} {offline}");
        }
        assert_eq!(place.bodies(), 0);
        // The folder with the configuration, of which both have all.
        let name = "hf:me/net".parse().unwrap();
        let folder = fetch(&name, Want::Weights, &place.settings(true)).unwrap();
        assert_eq!(first[0], folder.join("model.safetensors"));
    }
}

/// The folder for the hub of a model that is filled by rule, and its features of `images`.
fn export(folder: &Path, images: &Tensor) -> Vec<Tensor> {
    let model = models::find("resnet18").unwrap();
    let store = VarStore::new(Device::Cpu);
    let options = BuildOptions { uninitialised: true, ..BuildOptions::default() };
    let backbone = model.build(&store.root(), &options).unwrap();
    let tensors: StateDict = store.variables().into_iter().collect();
    rule::fill(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
    let card = Card::new(&model, CardTask::Features, TimmConfig::imagenet("resnet18"));
    write_hub_folder(&Output::new(folder).unwrap(), &HubFlags::default(), &card, |folder| {
        Ok(ExportFormat::Hub.write(folder, &model, &tensors, None)?)
    })
    .unwrap();
    let images = FeatureMap::Grid(images.shallow_clone());
    let maps = tch::no_grad(|| backbone.forward(&images, &Mode::eval())).unwrap();
    maps.iter().map(FeatureMap::to_grid).collect()
}

#[test]
fn timm_has_our_features_of_what_is_published() {
    let place = Place::new();
    let images = Tensor::randn([2, 3, 64, 96], (Kind::Float, Device::Cpu));
    let expected = export(&place.path("model"), &images);
    let named = StateDict::from([("images".to_owned(), images)]);
    write_safetensors(place.path("images.safetensors"), &named, &Default::default()).unwrap();
    place.hub.upload("me/r18", &place.path("model")).unwrap();
    place.python(false, &["features", place.path("").to_str().unwrap(), "me/r18"]);
    let found = weights::read(place.path("features.safetensors")).unwrap().tensors;
    for way in ["local", "hub"] {
        for (level, map) in expected.iter().enumerate() {
            let found = &found[&format!("{way}/{level}")];
            let largest = (found - map).abs().max().double_value(&[]);
            let scale = map.abs().max().double_value(&[]);
            assert!(largest <= FLOAT32 * scale, "{way}, level {level}: {largest:e} of {scale:e}");
        }
    }
    // What timm has fetched is read here, and the model is found.
    let name = "hf:me/r18".parse().unwrap();
    let folder = fetch(&name, Want::Weights, &place.settings(false)).unwrap();
    assert_eq!(place.bodies(), 1);
    let model = weights::read(folder).unwrap().registered_model().unwrap();
    assert_eq!(model.name, "resnet18");
}
