//! Networks from `.pt2` files against PyTorch: on whole grids, on visible patches, and their
//! gradients. The reference reads the graph by itself and masks the whole grid
//! (`graph_reference.py`).

use std::collections::BTreeMap;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use backbone::graph::GraphModel;
use backbone::models::BuildOptions;
use backbone::weights::{self, StateDict};
use backbone::{Backbone, DropPathDraws, FeatureMap, Mode, PatchMask};
use spark_tests::run_python;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Float64 through up to a hundred layers, summed in another order: 1e-13 of a stage's largest
/// value was seen.
const FORWARD: f64 = 1e-12;
/// The same back again: 3e-12 of a parameter's largest gradient was seen.
const BACKWARD: f64 = 1e-10;
/// Gradients this much smaller than the network's largest are rounding errors of zero (a bias before
/// a batch norm).
const NOTHING: f64 = 1e-3;
/// The reference keeps at most so many values of a gradient: every k-th.
const MOST_VALUES: i64 = 16_384;

/// What a network gave, against the reference.
#[derive(Debug, Default)]
struct Found {
    forward: f64,
    backward: f64,
    gradients: usize,
    /// The parameter whose gradient is furthest.
    furthest: String,
}

struct Network {
    model: GraphModel,
    backbone: Box<dyn Backbone>,
    variables: StateDict,
    reference: BTreeMap<String, Tensor>,
}

impl Network {
    fn open(folder: &Path, name: &str, stages: &[String]) -> Self {
        let model = GraphModel::open(&folder.join(format!("{name}.pt2")), stages);
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
        let reference = weights::read(folder.join(format!("{name}.safetensors"))).unwrap().tensors;
        let mut store = VarStore::new(Device::Cpu);
        let options = BuildOptions { in_chans: model.in_chans(), ..BuildOptions::default() };
        let backbone = model.build(&store.root(), &options).unwrap();
        store.double();
        let variables: StateDict = store.variables().into_iter().collect();
        model.load(&variables).unwrap();
        Self { model, backbone, variables, reference }
    }

    fn input(&self) -> &Tensor {
        &self.reference["input"]
    }

    fn mask(&self) -> std::rc::Rc<PatchMask> {
        let active = self.reference["active"].to_kind(Kind::Bool).unsqueeze(1);
        PatchMask::from_active(&active).unwrap()
    }

    /// The stages of `x`, and the gradients of the reference's loss, against tensors that begin with
    /// these names.
    fn compare(&self, x: &FeatureMap, [stages, gradients]: [&str; 2]) -> Found {
        let mode = Mode::train().with_drop_path(DropPathDraws::Off);
        let maps = self.backbone.forward(x, &mode).unwrap_or_else(|error| panic!("{error}"));
        let mut found = Found::default();
        let mut loss = Tensor::from(0.0);
        for (number, map) in maps.iter().enumerate() {
            let map = map.to_grid();
            let expected = &self.reference[&format!("{stages}.{number}")];
            assert_eq!(map.size(), expected.size(), "{stages} {number}");
            let largest = expected.abs().max().double_value(&[]);
            found.forward = largest_of(
                found.forward,
                (&map - expected).abs().max().double_value(&[]) / largest,
            );
            let places = Tensor::arange(map.numel() as i64, (Kind::Double, Device::Cpu));
            loss += (&map * places.cos().view_as(&map)).sum(Kind::Double);
        }
        let parameters: Vec<(&String, &Tensor)> =
            self.variables.iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
        for (_, parameter) in &parameters {
            parameter.shallow_clone().zero_grad();
        }
        loss.backward();
        let expected = |name: &str| &self.reference[&format!("{gradients}.{name}")];
        let size = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
        let largest = parameters.iter().map(|(name, _)| size(expected(name))).fold(0.0, f64::max);
        for (name, parameter) in parameters {
            let (gradient, expected) = (parameter.grad(), expected(name));
            let count = gradient.numel() as i64;
            let step = (count + MOST_VALUES - 1) / MOST_VALUES;
            let thinned = gradient.flatten(0, -1).slice(0, None, None, step.max(1));
            let scale = size(expected).max(NOTHING * largest);
            let apart = size(&(thinned - expected.flatten(0, -1))) / scale;
            if largest_of(found.backward, apart) != found.backward {
                found.furthest = format!("{name}, {:.0e} of the largest", size(expected) / largest);
            }
            found.backward = largest_of(found.backward, apart);
            found.gradients += 1;
        }
        found
    }

    /// How far apart each way of execution is that the reference knows.
    fn compare_all(&self) -> Vec<(&'static str, Found)> {
        let (x, mask) = (self.input(), self.mask());
        let mut found = vec![("grid", self.compare(&grid(x), ["grid", "gridgrad"]))];
        if self.model.refusal().is_none() && self.reference.contains_key("masked.0") {
            let all = PatchMask::all_visible(x.size()[0], mask.patches(), Device::Cpu).unwrap();
            let all = FeatureMap::patches(x, &all).unwrap();
            found.push(("all visible", self.compare(&all, ["grid", "gridgrad"])));
            let packed = FeatureMap::patches(x, &mask).unwrap();
            found.push(("packed", self.compare(&packed, ["masked", "grad"])));
            let masked = FeatureMap::masked(x, &mask).unwrap();
            found.push(("masked", self.compare(&masked, ["masked", "grad"])));
        }
        found
    }
}

fn grid(x: &Tensor) -> FeatureMap {
    FeatureMap::Grid(x.shallow_clone())
}

/// The larger one; a NaN stays.
fn largest_of(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The networks that the reference knows.
fn families() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/graph_families.json")
}

/// Hand-written networks, each for the operators in it, and the smallest of large families.
const NETWORKS: &str = "senet,cbam,cspdarknet,dilated,weight_standard,convnextv2_user,transposed,\
                        hourglass,blurpool,ceil,rectangular,tied,channels_last,shuffle,mixer,\
                        regnety_002,tf_efficientnet_b0";

#[test]
fn visible_patches_grids_and_gradients_are_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    let list = families();
    let only = Path::new(NETWORKS);
    run_python("graph_reference.py", &[&list, folder.path(), Path::new("--only"), only]);
    for name in NETWORKS.split(',') {
        let network = Network::open(folder.path(), name, &[]);
        let ways = network.compare_all();
        assert_eq!(ways.len(), 4, "{name} is refused");
        for (way, found) in ways {
            assert!(found.gradients > 0, "{name} {way}");
            assert!(found.forward <= FORWARD, "{name} {way}: {found:?}");
            assert!(found.backward <= BACKWARD, "{name} {way}: {found:?}");
        }
        network.model.verify().unwrap();
    }
}

/// Every network of the list, kept in cargo's folder for tests' files for another run; prints a
/// table.
#[test]
#[ignore = "an hour: cargo xtask test -p spark-tests every_network_of_the_list -- --ignored --nocapture"]
fn every_network_of_the_list() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("graph_families");
    run_python("graph_reference.py", &[&families(), &folder, "--timeout".as_ref(), "900".as_ref()]);
    let entries: Vec<Entry> = serde_json::from_slice(&fs::read(families()).unwrap()).unwrap();
    let summary: BTreeMap<String, Summary> =
        serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap();
    println!("| network | family | way | forward | backward |\n|---|---|---|---|---|");
    let mut wrong = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.family.starts_with("refused")) {
        let (name, family) = (entry.name(), &entry.family);
        let status = summary[&name].status.as_str();
        let Ok(network) = panic::catch_unwind(|| Network::open(&folder, &name, &entry.stages))
        else {
            wrong.push(format!("{name}: cannot be opened; PyTorch's side is {status}"));
            continue;
        };
        let Ok(ways) = panic::catch_unwind(AssertUnwindSafe(|| network.compare_all())) else {
            wrong.push(format!("{name}: does not run"));
            continue;
        };
        if let Some(reason) = network.model.refusal() {
            println!("{name} runs on the grid alone: {reason}");
        }
        if status == "ok" && ways.len() == 1 {
            wrong.push(format!("{name}: refused, but PyTorch's side is {status}"));
        }
        for (way, Found { forward, backward, furthest, .. }) in ways {
            println!("| {name} | {family} | {way} | {forward:.0e} | {backward:.0e} |");
            // Of a hundred networks some are deeper. One that computes in float32 itself says so in
            // the list.
            let most_forward = entry.tolerance.unwrap_or(10.0 * FORWARD);
            let most_backward = most_forward * BACKWARD / FORWARD;
            if !(forward <= most_forward && backward <= most_backward) {
                wrong.push(format!("{name}, {way}: {forward:.1e}, {backward:.1e} ({furthest})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An entry of the list.
#[derive(serde::Deserialize)]
struct Entry {
    family: String,
    source: String,
    name: Option<String>,
    #[serde(default)]
    stages: Vec<String>,
    tolerance: Option<f64>,
}

impl Entry {
    /// As `graph_reference.py` calls its files.
    fn name(&self) -> String {
        let source = self.source.split_once(':').map_or("", |(_, name)| name);
        self.name.clone().unwrap_or_else(|| source.replace('.', "_"))
    }
}

/// What `graph_reference.py` says of one.
#[derive(serde::Deserialize)]
struct Summary {
    status: String,
}

/// What has no meaning on visible patches, and what is no backbone at all.
#[test]
fn what_cannot_run_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let list = families();
    let names = "non_local,per_position,in_place_view,tiny_transformer,flat_mlp,lenet";
    run_python(
        "graph_reference.py",
        &[&list, folder.path(), Path::new("--only"), Path::new(names)],
    );
    let open = |name: &str| GraphModel::open(&folder.path().join(format!("{name}.pt2")), &[]);
    for (name, parts) in [
        ("non_local", ["attention", "refused.py:"]),
        ("per_position", ["has a value for every position", "self.change(self.trunk(x))"]),
    ] {
        let model = open(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let refusal = model.refusal().unwrap_or_else(|| panic!("{name} is not refused"));
        assert!(parts.iter().all(|part| refusal.contains(part)), "{name}: {refusal}");
        assert!(refusal.contains("--stages"), "{refusal}");
        assert!(model.describe().contains("cannot be pretrained"), "{name}");
        assert!(model.verify().is_err());
    }
    for (name, part) in [
        ("in_place_view", "changed in place through another view"),
        ("tiny_transformer", "is it a convolutional network?"),
        ("flat_mlp", "is it a convolutional network?"),
    ] {
        let message = open(name).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(part), "{name}: {message}");
    }
}

/// As far as its classifier: dropout, which evaluation leaves out, and a linear head.
#[test]
fn a_whole_network_gives_torchvisions_logits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mobilenet.pt2");
    run_python("timm_pt2.py", &[Path::new("torchvision:mobilenet_v2"), &file]);
    let reference = weights::read(file.with_extension("safetensors")).unwrap().tensors;
    let model = GraphModel::open(&file, &[]).unwrap();
    let store = VarStore::new(Device::Cpu);
    let network = model.whole(&store.root()).unwrap();
    let logits = tch::no_grad(|| network.forward(&reference["image"], &Mode::eval())).unwrap();
    assert_eq!(logits.len(), 1);
    let expected = &reference["logits"];
    let difference = (&logits[0] - expected).abs().max().double_value(&[]);
    // Float32 through fifty layers.
    assert!(difference <= 1e-5 * expected.abs().max().double_value(&[]), "{difference:e}");
}

/// The command in Python that writes the files.
#[test]
fn the_export_command_writes_them_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    print!("{}", run_python("export_command.py", &[folder.path()]));
}
